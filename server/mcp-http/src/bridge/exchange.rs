//! A request, and what is heard of it.

use core::time::Duration;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use hyper::body::Incoming;
use obol_mcp::routing::Outline;
use obol_mcp::wrap::Call;
use tokio::time::{sleep, timeout};

use super::{Draw, INITIALIZE, Inner, spoken};
use crate::body::{self, EventReader};
use crate::remote::told;
use crate::{MAX_SERVER_BYTES, headers};

/// How long the server may take to say that it heard what has no answer.
const NOTICE_WAIT: Duration = Duration::from_secs(30);
/// How long to wait before a stream is taken up again, if the server does not say, and the longest that it can say.
const RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(60);
/// How often in a row that is tried without hearing anything.
const MAX_TRIES: u32 = 5;
/// The longest part of a server's own words in an error, in characters.
const MAX_TOLD: usize = 300;
const LOST: &str =
    "The server's answer broke off; what it was asked may have happened, and is not asked again";

/// Where a stream has got to.
struct Place {
    last: Option<String>,
    retry: Duration,
}

impl Default for Place {
    fn default() -> Self {
        Self { last: None, retry: RETRY }
    }
}

/// What became of a stream.
enum Stream {
    /// It had the answer; a call is to be made once more.
    Answered(Option<Call>),
    /// It ended before, and something was heard on it, or nothing.
    Over { heard: bool },
}

impl<D: Draw> Inner<D> {
    /// Sends a request, and tells the client what is said to it. A call that it gives is to be made once more.
    pub(super) async fn exchange(self: &Arc<Self>, line: &str) -> Option<Call> {
        let outline = Outline::of(line).unwrap_or_default();
        let begins = outline.method.as_deref() == Some(INITIALIZE);
        let headers = self.spoken.lock().headers_of(&outline);
        let sent = self.remote.send(Method::POST, headers, Bytes::from(line.to_owned())).await;
        let response = match sent {
            Ok(response) => response,
            Err(error) => return self.fail(&outline, &told(&error)).await,
        };
        let status = response.status();
        if begins && status.is_success() {
            self.spoken.lock().hear_session(response.headers());
        }
        if !headers::is_unpacked(response.headers()) {
            return self.fail(&outline, "The server packed its answer without being asked to").await;
        }
        if status.is_success() && headers::content_type(response.headers()) == "text/event-stream" {
            return self.answer_in_stream(response, &outline).await;
        }
        let is_over =
            status == StatusCode::NOT_FOUND && !outline.is_stateless() && self.spoken.lock().has_session();
        let again = self.answer_in_one(response, &outline).await;
        if is_over {
            self.session_over.notify_one();
        }
        again
    }

    /// An answer that is one message, or none.
    async fn answer_in_one(&self, response: Response<Incoming>, outline: &Outline) -> Option<Call> {
        let status = response.status();
        let read = match body::read(response.into_body(), MAX_SERVER_BYTES).await {
            Ok(read) => read,
            Err(why) => {
                return self.fail(outline, &format!("The server's answer cannot be read: {why}")).await;
            }
        };
        let text = str::from_utf8(&read).unwrap_or_default();
        let answer = Outline::of(text).unwrap_or_default();
        if answer.answers.is_some() && answer.answers == outline.request {
            self.hear_version(outline, &answer);
            return self.hear(text).await;
        }
        let said: String = text.chars().take(MAX_TOLD).collect();
        self.fail(outline, &format!("The server did not answer the request: {status} {said}")).await
    }

    /// An answer in a stream, which is taken up again where it breaks off and can be.
    async fn answer_in_stream(&self, response: Response<Incoming>, outline: &Outline) -> Option<Call> {
        let mut place = Place::default();
        let mut reader = EventReader::new(response.into_body());
        let mut tries = 0;
        loop {
            match self.read(&mut reader, &mut place, outline).await {
                Stream::Answered(again) => return again,
                Stream::Over { heard: true } => tries = 0,
                Stream::Over { heard: false } => tries += 1,
            }
            loop {
                if place.last.is_none() || outline.is_stateless() || tries >= MAX_TRIES {
                    return self.fail(outline, LOST).await;
                }
                sleep(place.retry).await;
                match self.take_up(&place).await {
                    Ok(again) => reader = again,
                    Err(_) => {
                        tries += 1;
                        continue;
                    }
                }
                break;
            }
        }
    }

    /// Reads a stream until it has the answer, or is over.
    async fn read(&self, reader: &mut EventReader, place: &mut Place, outline: &Outline) -> Stream {
        let mut heard = false;
        while let Some(Ok(event)) = reader.next().await {
            if let Some(id) = event.id() {
                place.last = Some(id.to_owned());
            }
            if let Some(millis) = event.retry_millis() {
                place.retry = Duration::from_millis(millis).min(MAX_RETRY);
            }
            let Some(data) = event.data().filter(|data| !data.is_empty()) else { continue };
            let Ok(text) = str::from_utf8(&data) else { continue };
            heard = true;
            let message = Outline::of(text).unwrap_or_default();
            let is_answer = message.answers.is_some() && message.answers == outline.request;
            if is_answer {
                self.hear_version(outline, &message);
            }
            let again = self.hear(text).await;
            if is_answer {
                return Stream::Answered(again);
            }
        }
        Stream::Over { heard }
    }

    /// Asks for a stream behind the event that it has got to. The error says whether there can be one later.
    async fn take_up(&self, place: &Place) -> Result<EventReader, bool> {
        let headers = self.spoken.lock().headers_of_stream(place.last.as_deref());
        let response = self.remote.send(Method::GET, headers, Bytes::new()).await.map_err(|_| true)?;
        let is_stream = headers::content_type(response.headers()) == "text/event-stream";
        if response.status().is_success() && is_stream && headers::is_unpacked(response.headers()) {
            return Ok(EventReader::new(response.into_body()));
        }
        Err(response.status().is_server_error())
    }

    /// Listens to what the server says by itself, for as long as it has a stream for that.
    pub(super) async fn listen(self: Arc<Self>) {
        let (mut place, mut tries) = (Place::default(), 0);
        while tries < MAX_TRIES {
            match self.take_up(&place).await {
                Ok(mut reader) => match self.read(&mut reader, &mut place, &Outline::default()).await {
                    Stream::Answered(_) | Stream::Over { heard: true } => tries = 0,
                    Stream::Over { heard: false } => tries += 1,
                },
                Err(true) => tries += 1,
                Err(false) => return,
            }
            sleep(place.retry).await;
        }
        tracing::warn!("the server's stream is given up; what it says by itself is not heard any more");
    }

    /// Sends what has no answer; whether it was heard.
    pub(super) async fn notify(&self, line: &str) -> bool {
        let outline = Outline::of(line).unwrap_or_default();
        let headers = self.spoken.lock().headers_of(&outline);
        let sent = self.remote.send(Method::POST, headers, Bytes::from(line.to_owned()));
        match timeout(NOTICE_WAIT, sent).await {
            Ok(Ok(response)) if response.status().is_success() => true,
            Ok(Ok(response)) => {
                tracing::warn!(status = %response.status(), "the server did not take a message");
                if response.status() == StatusCode::NOT_FOUND && self.spoken.lock().has_session() {
                    self.session_over.notify_one();
                }
                false
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "the server did not take a message");
                false
            }
            Err(_) => false,
        }
    }

    /// Ends the session, if there is one.
    pub(super) async fn end_session(&self) {
        let headers = self.spoken.lock().headers_of_end();
        if let Some(headers) = headers {
            let _nothing_depends_on_it = self.remote.send(Method::DELETE, headers, Bytes::new()).await;
        }
    }

    fn hear_version(&self, outline: &Outline, answer: &Outline) {
        if outline.method.as_deref() == Some(INITIALIZE) {
            self.spoken.lock().hear_version(answer);
        }
    }

    /// Answers a request in the server's place. The answer takes the way of all answers, under the number that the server was sent.
    async fn fail(&self, outline: &Outline, why: &str) -> Option<Call> {
        match &outline.request {
            Some(id) => self.hear(&spoken::failure(id, why)).await,
            None => {
                tracing::warn!(why, "a message has no answer");
                None
            }
        }
    }
}

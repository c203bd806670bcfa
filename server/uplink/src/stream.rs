//! What the service says to those who follow it, opened message by message, and what is answered.

use core::fmt;
use core::time::Duration;
use std::sync::Arc;

use http_body_util::BodyExt as _;
use obol_handshake::{HandshakeError, Opener, Sealer};
use obol_session::Cursor;
use obol_stream::{Frames, Hello, Item, MAX_ITEM_BYTES, StreamId, Word};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::connect::{Answer, Body, Connection, UplinkConnector};
use crate::error::AuthError;
use crate::exchange::Proven;
use crate::outbox::Outbox;
use crate::pinned::Pinned;

/// What sealing adds to a message, in bytes.
const TAG_BYTES: usize = 16;
/// How long the first item may take.
const FIRST_PATIENCE: Duration = Duration::from_secs(10);
/// So many heartbeats may be left out before the line counts as dead.
const MISSED_HEARTBEATS: u32 = 3;
/// How often a service says it sends heartbeats at most, and at least, in seconds.
const HEARTBEAT_SECS: (u64, u64) = (1, 60);
/// Pause between two words: what changes meanwhile is said with the next.
const SAY_EVERY: Duration = Duration::from_millis(50);
/// Pause after a word that did not arrive.
const SAY_AGAIN: Duration = Duration::from_millis(500);
/// Where words go.
const WORDS: &str = "/v1/stream/words";

/// The service, speaking. Dropping it ends the connection.
pub struct Stream {
    reader: Reader,
    hello: Hello,
    voice: Option<Voice>,
}

/// Items as they come.
struct Reader {
    body: Body,
    frames: Frames,
    opener: Opener,
    patience: Duration,
}

impl Reader {
    async fn next(&mut self) -> Result<Item, AuthError> {
        loop {
            let message = self.frames.next_message().map_err(|error| AuthError::Answer(error.to_string()))?;
            if let Some(sealed) = message {
                let plain = self.opener.open(&sealed);
                let plain = plain.map_err(|_| AuthError::NotTheService(HandshakeError::Tag))?;
                return Item::read(&plain).map_err(|error| AuthError::Answer(error.to_string()));
            }
            let ended = || AuthError::Unreachable("the service ended the stream".to_owned());
            let frame = timeout(self.patience, self.body.incoming.frame()).await;
            let frame = frame.map_err(|_| AuthError::Unreachable("the stream is silent".to_owned()))?;
            let frame = frame.ok_or_else(ended)?;
            let frame = frame.map_err(|error| AuthError::Unreachable(error.to_string()))?;
            if let Some(bytes) = frame.data_ref() {
                self.frames.push(bytes);
            }
        }
    }
}

impl Stream {
    /// Reads the first item.
    pub(crate) async fn begin(
        body: Body,
        proven: Proven,
        connector: Arc<UplinkConnector>,
        service: Pinned,
    ) -> Result<Self, AuthError> {
        let Proven { established, .. } = proven;
        let mut reader = Reader {
            body,
            frames: Frames::new(MAX_ITEM_BYTES + TAG_BYTES),
            opener: established.receive,
            patience: FIRST_PATIENCE,
        };
        let hello = match reader.next().await? {
            Item::Hello(hello) => *hello,
            Item::Refused { code, detail } => return Err(AuthError::Refused { code, detail }),
            _ => return Err(AuthError::Answer("the stream does not begin with its beginning".to_owned())),
        };
        let heartbeat = hello.heartbeat_secs.clamp(HEARTBEAT_SECS.0, HEARTBEAT_SECS.1);
        reader.patience = Duration::from_secs(heartbeat) * MISSED_HEARTBEATS;
        let voice =
            Voice { stream: hello.stream, sealer: established.send, connector, service, connection: None };
        Ok(Self { reader, hello, voice: Some(voice) })
    }

    /// What came first.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Who answers; once.
    pub fn voice(&mut self) -> Option<Voice> {
        self.voice.take()
    }

    /// The next item. May be dropped while it waits; nothing is lost by that.
    ///
    /// # Errors
    ///
    /// [`AuthError::Unreachable`] where the line has ended, or is silent for longer than the service says it ever is;
    /// [`AuthError::NotTheService`] where a message is not the service's next one. The stream is over then.
    pub async fn next(&mut self) -> Result<Item, AuthError> {
        self.reader.next().await
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("hello", &self.hello).finish_non_exhaustive()
    }
}

/// What answers on a stream, over a connection of its own.
pub struct Voice {
    stream: StreamId,
    sealer: Sealer,
    connector: Arc<UplinkConnector>,
    service: Pinned,
    connection: Option<Connection>,
}

impl Voice {
    /// Says a word. When this returns, something at the service's address has taken it; what follows from it the stream says.
    ///
    /// # Errors
    ///
    /// [`AuthError`] where it may not have arrived. It can be said again.
    pub async fn say(&mut self, word: &Word) -> Result<(), AuthError> {
        let sealed = self.sealer.seal_numbered(&word.to_bytes());
        let (number, sealed) = sealed.map_err(|error| AuthError::System(error.to_string()))?;
        let envelope = Word::envelope(self.stream, number, &sealed);
        if let Some(mut open) = self.connection.take() {
            // The service may have closed it meanwhile; a number that arrives twice counts once.
            if let Ok(answer) = open.post(WORDS, &envelope).await {
                return self.taken(open, answer);
            }
        }
        let mut open = self.connector.open(&self.service).await?;
        let answer = open.post(WORDS, &envelope).await?;
        self.taken(open, answer)
    }

    /// Says how far its follower has come as often as that changes, a word as often as there is another, and what is in the
    /// outbox. Goes on until nobody changes either of the first two any more.
    pub async fn speak(
        mut self,
        mut cursor: watch::Receiver<Option<Cursor>>,
        mut word: watch::Receiver<Option<Word>>,
        outbox: Arc<Outbox>,
    ) {
        cursor.mark_changed();
        word.mark_changed();
        loop {
            let said = tokio::select! {
                changed = word.changed() => match changed {
                    Ok(()) => word.borrow_and_update().clone(),
                    Err(_) => return,
                },
                changed = cursor.changed() => match changed {
                    Ok(()) => cursor.borrow_and_update().map(|cursor| Word::Applied { seq: cursor.seq }),
                    Err(_) => return,
                },
                first = outbox.first() => Some(first),
            };
            let Some(said) = said else { continue };
            let is_first = matches!(said, Word::TokenStolen { .. });
            match self.say(&said).await {
                Ok(()) => {
                    if is_first {
                        outbox.done();
                    }
                    sleep(SAY_EVERY).await;
                }
                // An older service does not know the word, and never will.
                Err(AuthError::Rejected { code, .. }) if is_first && code == "MALFORMED" => {
                    tracing::warn!("the service does not know what a stolen token is; it is not told");
                    outbox.done();
                }
                Err(error) => {
                    tracing::debug!(%error, "a word did not arrive; it is said again");
                    match said {
                        Word::Applied { .. } => cursor.mark_changed(),
                        Word::Flushed { .. } => word.mark_changed(),
                        Word::TokenStolen { .. } => {}
                    }
                    sleep(SAY_AGAIN).await;
                }
            }
        }
    }

    fn taken(&mut self, open: Connection, answer: Answer) -> Result<(), AuthError> {
        self.connection = Some(open);
        match answer {
            Answer::Done(_) => Ok(()),
            Answer::Refused(clear) => Err(clear.into()),
        }
    }
}

impl fmt::Debug for Voice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Voice").field("stream", &self.stream).finish_non_exhaustive()
    }
}

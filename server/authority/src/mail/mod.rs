//! E-mail to those who are told of what waits for a human, and of alarms.
//!
//! One task for each topic, behind the bounded queue of notices: nobody waits for a mail server. What comes while one is sent
//! goes together in the next, and two of one topic are some seconds apart, so that nobody can fill a mailbox. A message is
//! tried a few times, then given up and counted. No words of an agent stand in a header: subject and addresses are ours.

mod settings;

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::path::Path;
use std::sync::Arc;

use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MessageBuilder};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::Tls;
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};
use obol_secret::text::plain;
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

pub use self::settings::{MailError, MailSettings};
use crate::notices::{Notice, Notices, Topic};
use crate::ssf::{OutletStatus, fresh_name};

/// How long a message may take, from connecting to the server's last word.
const PATIENCE: Duration = Duration::from_secs(30);
/// The first pause before a message is tried again; each one after it is twice as long.
const PAUSE: Duration = Duration::from_secs(1);
/// How often a message is tried.
const TRIES: u32 = 6;
/// How far apart two messages of one topic are.
const APART: Duration = Duration::from_secs(10);
/// The most notices in one message.
const MAX_TOGETHER: usize = 50;
/// The longest text of a notice in a message, in characters.
const MAX_TEXT_CHARS: usize = 1_000;
/// The longest error that is kept, in characters: it is the server's text.
const MAX_ERROR_CHARS: usize = 200;

/// Sends messages, while it runs.
#[derive(Debug)]
pub struct Mail {
    settings: MailSettings,
    tls: Tls,
    counts: [(Topic, Counts); 2],
}

/// What came of one topic.
#[derive(Debug, Default)]
struct Counts {
    waiting: AtomicU64,
    sent: AtomicU64,
    dropped: AtomicU64,
    error: Mutex<Option<String>>,
}

/// What came of sending a message once.
enum Sent {
    Taken,
    /// The server does not want it, and will not.
    Refused(String),
    /// It may take it later.
    Later(String),
}

impl Mail {
    /// Sends what these settings say. A mail server is trusted by the system's certificate authorities, or those of one file
    /// alone.
    ///
    /// # Errors
    ///
    /// Where the file cannot be read, or there is none and the system trusts nobody.
    pub fn new(settings: MailSettings, ca_file: Option<&Path>) -> Result<Self, MailError> {
        let tls = settings.server.tls(ca_file)?;
        let counts = [Topic::Approvals, Topic::Alarms].map(|topic| (topic, Counts::default()));
        Ok(Self { settings, tls, counts })
    }

    /// How it stands with each topic that somebody hears of.
    pub fn status(&self) -> Vec<OutletStatus> {
        let told = self.counts.iter().filter(|(topic, _)| !self.settings.about(*topic).is_empty());
        told.map(|(topic, counts)| OutletStatus {
            name: topic.name().to_owned(),
            kind: "mail",
            waiting: counts.waiting.load(Ordering::Relaxed),
            sent: counts.sent.load(Ordering::Relaxed),
            dropped: counts.dropped.load(Ordering::Relaxed),
            error: counts.error.lock().clone(),
        })
        .collect()
    }

    /// Sends what is said, for a service that is known as `origin`, until it is dropped. What was said before is not sent: this is
    /// called first.
    pub(crate) fn run(self: &Arc<Self>, notices: &Notices, origin: &str) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for index in 0..self.counts.len() {
            let (mail, heard, origin) = (Arc::clone(self), notices.listen(), origin.to_owned());
            tasks.spawn(async move { mail.run_topic(index, heard, &origin).await });
        }
        tasks
    }

    async fn run_topic(&self, index: usize, mut heard: broadcast::Receiver<Notice>, origin: &str) {
        let Some((topic, counts)) = self.counts.get(index) else { return };
        if self.settings.about(*topic).is_empty() {
            return;
        }
        loop {
            let first = match heard.recv().await {
                Ok(notice) => notice,
                Err(RecvError::Lagged(lost)) => {
                    counts.dropped.fetch_add(lost, Ordering::Relaxed);
                    continue;
                }
                Err(RecvError::Closed) => return,
            };
            if first.topic != *topic {
                continue;
            }
            let mut together = vec![first];
            while together.len() < MAX_TOGETHER {
                match heard.try_recv() {
                    Ok(notice) if notice.topic == *topic => together.push(notice),
                    Ok(_) => {}
                    Err(TryRecvError::Lagged(lost)) => {
                        counts.dropped.fetch_add(lost, Ordering::Relaxed);
                    }
                    Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                }
            }
            self.tell(*topic, counts, &together, origin).await;
            sleep(APART).await;
        }
    }

    async fn tell(&self, topic: Topic, counts: &Counts, together: &[Notice], origin: &str) {
        let count = u64::try_from(together.len()).unwrap_or(u64::MAX);
        counts.waiting.store(count, Ordering::Relaxed);
        let given_up = self.tries(topic, counts, together, origin).await.err();
        counts.waiting.store(0, Ordering::Relaxed);
        let counted = if given_up.is_some() { &counts.dropped } else { &counts.sent };
        counted.fetch_add(count, Ordering::Relaxed);
        if let Some(error) = &given_up {
            tracing::error!(error, notices = count, "a message was given up, so somebody was not told");
        }
        *counts.error.lock() = given_up;
    }

    async fn tries(
        &self,
        topic: Topic,
        counts: &Counts,
        together: &[Notice],
        origin: &str,
    ) -> Result<(), String> {
        let name = format!("<{}@{}>", fresh_name(), self.settings.from.email.domain());
        let mut pause = PAUSE;
        for tried in 1..=TRIES {
            match self.send(self.message(topic, together, origin, &name)?).await {
                Sent::Taken => return Ok(()),
                Sent::Later(error) if tried < TRIES => {
                    *counts.error.lock() = Some(error);
                    sleep(pause).await;
                    pause *= 2;
                }
                Sent::Later(error) | Sent::Refused(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The message. Tried again it has the same name, so that a reader sees it once.
    fn message(
        &self,
        topic: Topic,
        together: &[Notice],
        origin: &str,
        name: &str,
    ) -> Result<Message, String> {
        let subject = match (topic, together.len()) {
            (Topic::Approvals, 1) => "Obol: an agent waits for a human".to_owned(),
            (Topic::Approvals, count) => format!("Obol: {count} requests of agents wait for a human"),
            (_, 1) => "Obol: an alarm".to_owned(),
            (_, count) => format!("Obol: {count} alarms"),
        };
        let to = |message: MessageBuilder, one: &Mailbox| message.to(one.clone());
        let message = Message::builder().from(self.settings.from.clone()).subject(subject);
        let message = message.message_id(Some(name.to_owned())).header(ContentType::TEXT_PLAIN);
        let message = self.settings.about(topic).iter().fold(message, to);
        let mut message = message.body(body(together, origin)).map_err(|error| error.to_string())?;
        // RFC 3834: nobody's "I am away" answers it.
        let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
        message.headers_mut().insert_raw(HeaderValue::new(automatic, "auto-generated".to_owned()));
        Ok(message)
    }

    async fn send(&self, message: Message) -> Sent {
        let server = &self.settings.server;
        let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(server.host.as_str())
            .port(server.port)
            .tls(self.tls.clone())
            .timeout(Some(PATIENCE))
            .hello_name(ClientId::default());
        if let Some(login) = &self.settings.login {
            transport =
                transport.credentials(Credentials::new(login.user.clone(), login.password.to_string()));
        }
        let transport: AsyncSmtpTransport<Tokio1Executor> = transport.build();
        match timeout(PATIENCE, transport.send(message)).await {
            Err(_) => Sent::Later("no last word of the mail server in time".to_owned()),
            Ok(Ok(_)) => Sent::Taken,
            Ok(Err(error)) => {
                let text = plain(&error_text(&error)).chars().take(MAX_ERROR_CHARS).collect();
                if error.is_permanent() { Sent::Refused(text) } else { Sent::Later(text) }
            }
        }
    }
}

/// An error with what is behind it.
fn error_text(error: &dyn core::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}

/// One line for each notice: what somebody else said stands in it as plain text.
fn body(together: &[Notice], origin: &str) -> String {
    let mut body = String::new();
    for notice in together {
        let text: String = plain(&notice.text).chars().take(MAX_TEXT_CHARS).collect();
        body.push_str(&text);
        body.push_str("\r\n\r\n");
    }
    body.push_str("-- \r\nThe Authentication Service at ");
    body.push_str(origin);
    body.push_str("\r\nWhoever decides logs in there first: no link here holds a secret.\r\n");
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail() -> Mail {
        let to = ["ops@example.com".to_owned(), "second@example.com".to_owned()];
        let settings = MailSettings::new("smtps://mail.example", "obol@example.com").unwrap();
        Mail::new(settings.to(&to, &to[..1]).unwrap(), None).unwrap()
    }

    fn notice(text: &str) -> Notice {
        Notice { topic: Topic::Approvals, kind: "call_waits", text: text.to_owned(), at: 0, call: None }
    }

    #[test]
    fn no_words_of_an_agent_make_a_header_or_a_second_message() {
        let evil = "x\r\nBcc: all@evil.example\r\n\r\n.\r\nMAIL FROM:<a@evil.example>\r\n\u{202e}\u{1b}[2J\0";
        let message =
            mail().message(Topic::Approvals, &[notice(evil)], "https://as.example", "<1@as>").unwrap();
        let text = String::from_utf8(message.formatted()).unwrap();
        let (headers, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(!headers.contains("evil"), "{headers}");
        let own = [
            "from",
            "to",
            "subject",
            "message-id",
            "date",
            "content-type",
            "content-transfer-encoding",
            "mime-version",
            "auto-submitted",
        ];
        for line in headers.lines().filter(|line| !line.starts_with(' ')) {
            let name = line.split(':').next().unwrap().to_ascii_lowercase();
            assert!(own.contains(&name.as_str()), "{line}");
        }
        assert!(
            !body.lines().any(|line| line == "." || line.starts_with("Bcc") || line.starts_with("MAIL")),
            "{body}"
        );
        assert!(!body.contains(['\u{202e}', '\u{1b}', '\0']), "{body}");
        assert_eq!(message.envelope().to().len(), 2, "whoever is set, and nobody else");
    }

    #[test]
    fn what_waits_goes_together_and_is_not_endless() {
        let many: Vec<Notice> = (0..MAX_TOGETHER).map(|_| notice(&"x".repeat(5_000))).collect();
        let message = mail().message(Topic::Approvals, &many, "https://as.example", "<1@as>").unwrap();
        let text = String::from_utf8(message.formatted()).unwrap();
        assert!(text.contains("Subject: Obol: 50 requests of agents wait for a human"), "{text}");
        assert!(text.len() < 80_000 && text.lines().all(|line| line.len() <= 998), "{}", text.len());
    }
}

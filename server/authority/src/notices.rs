//! What is told once: alarms, and what waits for a human. It goes through a bounded queue that nobody waits for; what does not fit
//! is counted. No notice holds a secret: a link leads to where somebody has to log in.

use core::sync::atomic::{AtomicU64, Ordering};

use obol_probe::rate::{Limiter, Rate, Start};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::broadcast;

/// The most notices that wait for one who is told; older ones are given up.
const MAX_WAITING: usize = 1_024;
/// How many of one topic may come at once; then one a second.
const BURST: u32 = 20;
/// The longest text of a notice that is somebody else's, in characters.
const MAX_TEXT: usize = 200;

/// What somebody wants to hear of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Topic {
    /// Sessions that open and end.
    Sessions,
    /// What somebody should look at soon.
    Alarms,
    /// What waits for a human.
    Approvals,
}

/// Something that somebody should know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Notice {
    /// What it is about.
    pub(crate) topic: Topic,
    /// A stable name of its kind, such as `clone_suspected`.
    pub(crate) kind: &'static str,
    /// In words.
    pub(crate) text: String,
    /// When, in Unix seconds.
    pub(crate) at: u64,
}

impl Notice {
    /// As a document for programs.
    pub(crate) fn to_json(&self, origin: &str) -> Value {
        let topic = match self.topic {
            Topic::Sessions => "session",
            Topic::Alarms => "alarm",
            Topic::Approvals => "approval",
        };
        json!({ "type": format!("{topic}.{}", self.kind), "timestamp": self.at, "data": {
            "text": self.text, "service": origin,
        }})
    }
}

/// Where notices go.
#[derive(Debug)]
pub(crate) struct Notices {
    sender: broadcast::Sender<Notice>,
    /// So many of each topic; whoever could cause more must not fill a mailbox.
    topics: Limiter<Topic>,
    start: Start,
    left_out: AtomicU64,
}

impl Default for Notices {
    fn default() -> Self {
        Self {
            sender: broadcast::Sender::new(MAX_WAITING),
            topics: Limiter::new(Rate::new(1).map(|rate| rate.with_burst(BURST))),
            start: Start::now(),
            left_out: AtomicU64::new(0),
        }
    }
}

impl Notices {
    /// Says something. Never waits.
    pub(crate) fn say(&self, topic: Topic, kind: &'static str, text: String, at: u64) {
        if self.topics.take(topic, self.start.nanoseconds()).is_err() {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return;
        }
        // An error says that nobody listens.
        let _nobody = self.sender.send(Notice { topic, kind, text, at });
    }

    /// How many were left out because there were too many.
    pub(crate) fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }

    /// How many hear what is said.
    #[cfg(test)]
    pub(crate) fn listeners(&self) -> usize {
        self.sender.receiver_count()
    }

    /// What is said from now on.
    pub(crate) fn listen(&self) -> broadcast::Receiver<Notice> {
        self.sender.subscribe()
    }
}

/// Somebody else's words, as they may stand in a notice: plain, and not long.
pub(crate) fn quoted(text: &str) -> String {
    obol_secret::text::plain(text).chars().take(MAX_TEXT).collect()
}

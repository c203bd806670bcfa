//! What is told once: alarms, and what waits for a human. It goes through a bounded queue that nobody waits for; what does not fit
//! is counted. No notice holds a secret: a link leads to where somebody has to log in.

use core::sync::atomic::{AtomicU64, Ordering};

use obol_probe::rate::{Limiter, Rate, Start};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::broadcast;

use crate::id::ApprovalId;

/// The most notices that wait for one who is told; older ones are given up.
const MAX_WAITING: usize = 1_024;
/// How many of one topic may come at once; then one a second.
const BURST: u32 = 20;
/// How many that one agent, or one address, causes may come at once; then one a minute.
const BURST_OF_ONE: u32 = 3;
/// How much slower than once a second that is.
const TIMES_SLOWER: u64 = 60;
/// The longest name of one who causes notices, in characters.
const MAX_CAUSE: usize = 64;
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
    /// The request for a human's yes that it is about.
    pub(crate) call: Option<ApprovalId>,
}

impl Topic {
    /// As it is set and shown.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::Alarms => "alarms",
            Self::Approvals => "approvals",
        }
    }
}

impl Notice {
    /// As a document for programs.
    pub(crate) fn to_json(&self, origin: &str) -> Value {
        let topic = match self.topic {
            Topic::Sessions => "session",
            Topic::Alarms => "alarm",
            Topic::Approvals => "approval",
        };
        let mut data = json!({ "text": self.text, "service": origin });
        if let (Some(call), Some(data)) = (&self.call, data.as_object_mut()) {
            data.insert("approval_id".to_owned(), json!(call));
        }
        json!({ "type": format!("{topic}.{}", self.kind), "timestamp": self.at, "data": data })
    }
}

/// Where notices go.
#[derive(Debug)]
pub(crate) struct Notices {
    sender: broadcast::Sender<Notice>,
    /// So many of each topic; whoever could cause more must not fill a mailbox.
    topics: Limiter<Topic>,
    /// So many that one agent or address causes: it must not use up what there is for all.
    causes: Limiter<String>,
    start: Start,
    left_out: AtomicU64,
}

impl Default for Notices {
    fn default() -> Self {
        Self {
            sender: broadcast::Sender::new(MAX_WAITING),
            topics: Limiter::new(Rate::new(1).map(|rate| rate.with_burst(BURST))),
            causes: Limiter::new(Rate::new(1).map(|rate| rate.with_burst(BURST_OF_ONE))),
            start: Start::now(),
            left_out: AtomicU64::new(0),
        }
    }
}

impl Notices {
    /// Says something. Never waits.
    pub(crate) fn say(&self, topic: Topic, kind: &'static str, text: String, at: u64) {
        self.send(Notice { topic, kind, text, at, call: None });
    }

    fn send(&self, notice: Notice) {
        if self.topics.take(notice.topic, self.start.nanoseconds()).is_err() {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return;
        }
        // An error says that nobody listens.
        let _nobody = self.sender.send(notice);
    }

    /// Says that something waits for a human, which one agent or address caused. Never waits.
    pub(crate) fn waits(
        &self,
        cause: &str,
        kind: &'static str,
        text: String,
        at: u64,
        call: Option<ApprovalId>,
    ) {
        let cause = cause.chars().take(MAX_CAUSE).collect();
        if self.causes.take(cause, self.start.nanoseconds() / TIMES_SLOWER).is_err() {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.send(Notice { topic: Topic::Approvals, kind, text, at, call });
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SystemRandom;

    #[test]
    fn one_cause_is_told_of_three_times_and_leaves_room_for_others() {
        let notices = Notices::default();
        let mut heard = notices.listen();
        let waits = |cause: &str| notices.waits(cause, "call_waits", cause.to_owned(), 1, None);
        for _ in 0..1_000 {
            waits("one");
        }
        waits("two");
        let told: Vec<String> =
            core::iter::from_fn(|| heard.try_recv().ok()).map(|notice| notice.text).collect();
        assert_eq!(told, ["one", "one", "one", "two"]);
        assert_eq!(notices.left_out(), 997);
    }

    #[test]
    fn a_program_finds_the_request_and_no_more() {
        let id = ApprovalId::generate(&mut SystemRandom);
        let notice = Notice {
            topic: Topic::Approvals,
            kind: "call_waits",
            text: "x".to_owned(),
            at: 7,
            call: Some(id.clone()),
        };
        let data = json!({ "text": "x", "service": "https://as", "approval_id": id });
        assert_eq!(
            notice.to_json("https://as"),
            json!({ "type": "approval.call_waits", "timestamp": 7, "data": data })
        );
    }
}

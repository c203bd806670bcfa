//! The thread that has the connection: each round is one script for all spends that wait, and every so often a look.
//!
//! Redis answers each mark on its own. When something is wrong, everyone is refused until the server is fit again: what a
//! lost reply said nobody knows, so its marks count as spent.

use core::ops::ControlFlow;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use obol_verify::inbox::{Content, Inbox, Waiting, refuse};
use obol_verify::{Clock, Mark, SpendError};

use crate::incarnation::{MARKS, Memory, check_clock};
use crate::link::{Answer, Link, Spend};
use crate::options::RedisOptions;
use crate::unfit::Unfit;

/// The most spends that may wait for a round trip.
pub(crate) const MAX_WAITING: usize = 1 << 14;
/// The most marks in one script. Keeps the time that it holds the server up below a millisecond.
const MAX_BATCH: usize = 256;
/// How often the server is looked at, busy or not.
pub const WATCH_INTERVAL: Duration = Duration::from_millis(200);
/// A server that has not answered for this long counts as gone. More than a watch interval and less than a second.
const STALE: Duration = Duration::from_millis(800);
/// The first and the longest pause between attempts to connect.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

const INCARNATION_IS_OVER: &str = "it has lost marks, or may have; tokens issued so far will be refused";

/// When the server answered last.
pub(crate) struct Contact(Instant);

impl Contact {
    pub(crate) fn now() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn check(&self) -> Result<(), SpendError> {
        if self.0.elapsed() > STALE {
            return Err(SpendError::Unavailable("Redis does not answer".into()));
        }
        Ok(())
    }
}

/// Tokens issued at or before this time are refused. Only rises, and rises before anything is accepted in the incarnation
/// that it belongs to.
pub(crate) struct Fence(AtomicU64);

impl Fence {
    /// In Unix seconds; 0 is none.
    pub(crate) fn new(fence: u64) -> Self {
        Self(AtomicU64::new(fence))
    }

    pub(crate) fn get(&self) -> Option<u64> {
        Some(self.0.load(Ordering::SeqCst)).filter(|fence| *fence > 0)
    }

    fn raise(&self, fence: u64) {
        self.0.fetch_max(fence, Ordering::SeqCst);
    }
}

enum Next {
    Spend(Vec<Waiting>),
    Watch,
    Close,
}

fn next(inbox: &Inbox<Contact>, watched_at: Instant) -> Next {
    inbox.next(|content: &mut Content<Contact>| {
        let left = WATCH_INTERVAL.saturating_sub(watched_at.elapsed());
        if !content.is_empty() && (!left.is_zero() || content.is_closing()) {
            return ControlFlow::Break(Next::Spend(content.take(MAX_BATCH)));
        }
        if content.is_closing() {
            return ControlFlow::Break(Next::Close);
        }
        if left.is_zero() { ControlFlow::Break(Next::Watch) } else { ControlFlow::Continue(left) }
    })
}

/// What the thread works with.
pub(crate) struct Work {
    pub(crate) fence: Arc<Fence>,
    pub(crate) memory: Memory,
    pub(crate) options: RedisOptions,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) keep_after_expiry: u64,
}

impl Work {
    pub(crate) fn run(mut self, inbox: &Inbox<Contact>, first: Link) {
        let mut link = Some(first);
        while let Some(mut current) = link.take() {
            let why = match self.serve(inbox, &mut current) {
                // Closed.
                Ok(()) => return,
                Err(why) => why,
            };
            // Whatever this connection still holds is not ours to understand.
            drop(current);
            inbox.refuse(format!("Redis at {}: {why}", self.options.address()));
            link = self.connect_again(inbox);
        }
    }

    /// Works until the set is closed, or until something is wrong.
    fn serve(&mut self, inbox: &Inbox<Contact>, link: &mut Link) -> Result<(), String> {
        let mut watched_at = Instant::now();
        loop {
            match next(inbox, watched_at) {
                Next::Close => return Ok(()),
                Next::Watch => {
                    self.watch(inbox, link)?;
                    watched_at = Instant::now();
                }
                Next::Spend(waiting) => self.spend(inbox, link, waiting)?,
            }
        }
    }

    fn watch(&mut self, inbox: &Inbox<Contact>, link: &mut Link) -> Result<(), String> {
        match link.watch(self.clock.now()) {
            Ok(Answer::Done(now)) => self.answered(inbox, now).map_err(|unfit| unfit.to_string()),
            Ok(Answer::IncarnationIsOver) => Err(INCARNATION_IS_OVER.to_owned()),
            Err(unfit) => Err(unfit.to_string()),
        }
    }

    /// Answers everyone in the batch. After an error nobody knows which of the marks are set; all are refused.
    fn spend(
        &mut self,
        inbox: &Inbox<Contact>,
        link: &mut Link,
        waiting: Vec<Waiting>,
    ) -> Result<(), String> {
        let kept = |mark: &Mark| (*mark.id(), self.end(mark));
        let marks: Vec<_> =
            waiting.iter().map(|one| Spend { mark: kept(one.mark()), with: one.with().map(kept) }).collect();
        let outcome = link.spend(&marks, self.clock.now()).and_then(|answer| match answer {
            Answer::IncarnationIsOver => Ok(None),
            Answer::Done((now, digits)) => self.answered(inbox, now).map(|()| Some(digits)),
        });
        let why = match outcome {
            Ok(Some(digits)) => {
                for (one, digit) in waiting.into_iter().zip(digits) {
                    one.resolve(meaning(digit));
                }
                return Ok(());
            }
            Ok(None) => INCARNATION_IS_OVER.to_owned(),
            Err(unfit) => unfit.to_string(),
        };
        refuse(waiting, why.clone());
        Err(why)
    }

    fn answered(&mut self, inbox: &Inbox<Contact>, server_ms: u64) -> Result<(), Unfit> {
        check_clock(server_ms, &self.options, &*self.clock, &mut self.memory)?;
        if self.memory.leapt {
            return Err(Unfit::Leapt);
        }
        inbox.with(|contact| *contact = Contact::now());
        Ok(())
    }

    /// The connection, once there is one again; `None` when the set is closed.
    fn connect_again(&mut self, inbox: &Inbox<Contact>) -> Option<Link> {
        let mut pause = BACK_OFF.0;
        while !inbox.is_closing() {
            match Link::open(&self.options, &MARKS, &*self.clock, &mut self.memory) {
                Ok((link, incarnation)) => {
                    self.fence.raise(incarnation.fence);
                    inbox.admit(|contact| *contact = Contact::now());
                    return Some(link);
                }
                Err(unfit) => inbox.refuse(format!("Redis at {}: {unfit}", self.options.address())),
            }
            if !inbox.pause(pause) {
                return None;
            }
            pause = (pause * 2).min(BACK_OFF.1);
        }
        None
    }

    /// When the mark may go, in Unix milliseconds. Depends on nothing but what is signed and what all servers share.
    fn end(&self, mark: &Mark) -> u64 {
        mark.expires_at()
            .saturating_add(self.keep_after_expiry)
            .saturating_add(self.options.max_clock_difference)
            .saturating_mul(1_000)
            // Lua counts in doubles.
            .min(1 << 52)
    }
}

fn meaning(digit: u8) -> Result<(), SpendError> {
    match digit {
        b'1' => Ok(()),
        b'0' => Err(SpendError::AlreadySpent),
        b'2' => Err(SpendError::Forgotten),
        _ => Err(SpendError::Unavailable("a reply of Redis makes no sense".into())),
    }
}

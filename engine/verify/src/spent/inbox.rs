//! Spends that wait for the one thread that can answer them: group commit, for a set in a file and for a shared one.
//!
//! Whoever spends leaves the mark here and gets a ticket. The thread that serves the inbox takes all that waits at once,
//! so that one commit, or one round trip, pays for as many spends as arrived during the one before. What it does with
//! them is its own business: a file that failed stops for good, a server over the network may come back.
//!
//! # What it promises
//!
//! - Whoever waits gets an answer: a batch that is dropped, and a thread that panics, refuse.
//! - Never more wait than [`Inbox::new`] was told. Whoever comes then is refused, and nothing was taken.
//! - While the inbox refuses, nothing gets in.

use core::fmt;
use core::ops::ControlFlow;
use core::time::Duration;
use std::borrow::Cow;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

use super::{Mark, SpendError, SpendTicket, Spender};

/// A spend that waits for its answer.
#[derive(Debug)]
pub struct Waiting {
    mark: Mark,
    with: Option<Mark>,
    spender: Spender,
}

impl Waiting {
    /// What is to be spent.
    pub fn mark(&self) -> &Mark {
        &self.mark
    }

    /// What is to be spent with it, in the same step.
    pub fn with(&self) -> Option<&Mark> {
        self.with.as_ref()
    }

    /// All that is to be spent.
    pub fn marks(&self) -> impl Iterator<Item = &Mark> {
        core::iter::once(&self.mark).chain(&self.with)
    }

    /// Answers.
    pub fn resolve(self, result: Result<(), SpendError>) {
        self.spender.resolve(result);
    }
}

/// Refuses them all, for one reason.
pub fn refuse(waiting: Vec<Waiting>, why: impl Into<Cow<'static, str>>) {
    let why = why.into();
    for one in waiting {
        one.resolve(Err(SpendError::Unavailable(why.clone())));
    }
}

/// Where spends wait, and what else their set keeps under the same lock.
pub struct Inbox<S> {
    content: Mutex<Content<S>>,
    /// Something came in, or the inbox closes.
    news: Condvar,
    max_waiting: usize,
}

/// What is in an inbox, to whoever serves it.
pub struct Content<S> {
    /// What the set itself keeps.
    pub own: S,
    waiting: Vec<Waiting>,
    /// Why nothing can be spent.
    refusing: Option<Cow<'static, str>>,
    closing: bool,
}

impl<S> Content<S> {
    /// Takes out at most this many, those that came first.
    pub fn take(&mut self, most: usize) -> Vec<Waiting> {
        if self.waiting.len() <= most {
            return core::mem::take(&mut self.waiting);
        }
        self.waiting.drain(..most).collect()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether nothing will come any more.
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    fn check(&self) -> Result<(), SpendError> {
        match &self.refusing {
            Some(why) => Err(SpendError::Unavailable(why.clone())),
            None => Ok(()),
        }
    }
}

impl<S> fmt::Debug for Content<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content")
            .field("waiting", &self.waiting.len())
            .field("refusing", &self.refusing)
            .finish_non_exhaustive()
    }
}

impl<S> fmt::Debug for Inbox<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").field("max_waiting", &self.max_waiting).finish_non_exhaustive()
    }
}

impl<S> Inbox<S> {
    /// An empty inbox, in which at most this many wait.
    pub fn new(max_waiting: usize, own: S) -> Self {
        let content = Content { own, waiting: Vec::new(), refusing: None, closing: false };
        Self { content: Mutex::new(content), news: Condvar::new(), max_waiting }
    }

    /// Leaves a mark, and another that is spent with it or not at all, if there is room and the set admits it.
    pub fn spend(
        &self,
        mark: Mark,
        with: Option<Mark>,
        admit: impl FnOnce(&mut S) -> Result<(), SpendError>,
    ) -> SpendTicket {
        let mut content = self.content.lock();
        let admitted = content.check().and_then(|()| {
            if content.waiting.len() >= self.max_waiting {
                return Err(SpendError::Unavailable("too many spends wait for an answer".into()));
            }
            admit(&mut content.own)
        });
        if let Err(error) = admitted {
            return SpendTicket::ready(Err(error));
        }
        let (spender, ticket) = SpendTicket::pending();
        content.waiting.push(Waiting { mark, with, spender });
        // Whoever serves looks again before it waits, so it needs waking only for the first.
        if content.waiting.len() == 1 {
            self.news.notify_one();
        }
        ticket
    }

    /// Asks the set something that only counts while it can spend.
    ///
    /// # Errors
    ///
    /// Why nothing can be spent, or what the question came to.
    pub fn ask<R>(&self, question: impl FnOnce(&S) -> Result<R, SpendError>) -> Result<R, SpendError> {
        let content = self.content.lock();
        content.check()?;
        question(&content.own)
    }

    /// Looks at what the set keeps, or changes it, whether or not it can spend.
    pub fn with<R>(&self, change: impl FnOnce(&mut S) -> R) -> R {
        change(&mut self.content.lock().own)
    }

    /// Waits until there is something to do. `choose` says what, or how long to wait at most before it is asked again.
    pub fn next<W>(&self, mut choose: impl FnMut(&mut Content<S>) -> ControlFlow<W, Duration>) -> W {
        let mut content = self.content.lock();
        loop {
            match choose(&mut content) {
                ControlFlow::Break(work) => return work,
                ControlFlow::Continue(longest) => {
                    let _timed_out = self.news.wait_for(&mut content, longest);
                }
            }
        }
    }

    /// Waits for this long, whatever comes in; `false` as soon as the inbox closes.
    pub fn pause(&self, duration: Duration) -> bool {
        let mut content = self.content.lock();
        let _timed_out = self.news.wait_while_for(&mut content, |content| !content.closing, duration);
        !content.closing
    }

    /// Whether nothing will come any more.
    pub fn is_closing(&self) -> bool {
        self.content.lock().closing
    }

    /// Nothing can be spent: everyone who waits is refused, and so is everyone who comes, until [`admit`](Self::admit).
    pub fn refuse(&self, why: impl Into<Cow<'static, str>>) {
        let why = why.into();
        let mut content = self.content.lock();
        content.refusing = Some(why.clone());
        let waiting = content.take(usize::MAX);
        drop(content);
        refuse(waiting, why);
    }

    /// Spends are taken (again), from this change of what the set keeps on.
    pub fn admit(&self, change: impl FnOnce(&mut S)) {
        let mut content = self.content.lock();
        change(&mut content.own);
        content.refusing = None;
    }

    fn close(&self) {
        self.content.lock().closing = true;
        self.news.notify_all();
    }
}

/// However the thread ends, by a panic too, nobody waits for it in vain. An earlier reason stays.
struct StopWithWriter<'a, S>(&'a Inbox<S>);

impl<S> Drop for StopWithWriter<'_, S> {
    fn drop(&mut self) {
        let mut content = self.0.content.lock();
        let why = content.refusing.get_or_insert("the writer has stopped".into()).clone();
        let waiting = content.take(usize::MAX);
        drop(content);
        refuse(waiting, why);
    }
}

/// An inbox with the thread that serves it. Dropping it lets the thread finish what waits, and waits for that.
#[derive(Debug)]
pub struct Writer<S> {
    inbox: Arc<Inbox<S>>,
    thread: Option<JoinHandle<()>>,
}

impl<S: Send + 'static> Writer<S> {
    /// Starts the thread. If the system gives none, the inbox refuses for good.
    pub fn start(inbox: Inbox<S>, name: &str, serve: impl FnOnce(&Inbox<S>) + Send + 'static) -> Self {
        let inbox = Arc::new(inbox);
        let for_thread = Arc::clone(&inbox);
        let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _stop = StopWithWriter(&for_thread);
            serve(&for_thread);
        });
        let thread = match spawned {
            Ok(handle) => Some(handle),
            Err(error) => {
                inbox.refuse(format!("no thread for the writer: {error}"));
                None
            }
        };
        Self { inbox, thread }
    }
}

impl<S> Writer<S> {
    /// The inbox.
    pub fn inbox(&self) -> &Inbox<S> {
        &self.inbox
    }
}

impl<S> Drop for Writer<S> {
    fn drop(&mut self) {
        self.inbox.close();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has refused everyone already.
            let _panicked = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use obol_token::{Jti, SessionId};

    use super::*;

    const SOON: Duration = Duration::from_secs(1);

    fn mark(byte: u8) -> Mark {
        Mark::new(SessionId::from_u64(1), &Jti::from_random([byte; 16]), 1_000)
    }

    fn spend(inbox: &Inbox<()>, byte: u8) -> SpendTicket {
        inbox.spend(mark(byte), None, |()| Ok(()))
    }

    fn unavailable(result: &Result<(), SpendError>) -> bool {
        matches!(result, Err(SpendError::Unavailable(_)))
    }

    /// All that waits, once there is something; `None` at the end.
    fn all(content: &mut Content<()>) -> ControlFlow<Option<Vec<Waiting>>, Duration> {
        match (content.is_empty(), content.is_closing()) {
            (false, _) => ControlFlow::Break(Some(content.take(usize::MAX))),
            (true, true) => ControlFlow::Break(None),
            (true, false) => ControlFlow::Continue(SOON),
        }
    }

    /// A writer that tells what it took, and answers when it is told to.
    fn led() -> (Writer<()>, mpsc::Receiver<Vec<Mark>>, mpsc::Sender<()>) {
        let (took, takes) = mpsc::channel();
        let (go, may_go) = mpsc::channel::<()>();
        let writer = Writer::start(Inbox::new(4, ()), "led", move |inbox| {
            while let Some(waiting) = inbox.next(all) {
                let _test_over = took.send(waiting.iter().map(|one| *one.mark()).collect());
                let _test_over = may_go.recv();
                waiting.into_iter().for_each(|one| one.resolve(Ok(())));
            }
        });
        (writer, takes, go)
    }

    #[test]
    fn what_comes_during_a_commit_goes_into_the_next_one_together() {
        let (writer, takes, go) = led();
        let first = spend(writer.inbox(), 1);
        assert_eq!(takes.recv().unwrap(), [mark(1)]);
        let others = [2, 3, 4].map(|byte| spend(writer.inbox(), byte));
        go.send(()).unwrap();
        first.wait().unwrap();
        assert_eq!(takes.recv().unwrap(), [mark(2), mark(3), mark(4)]);
        go.send(()).unwrap();
        assert!(others.into_iter().all(|ticket| ticket.wait() == Ok(())));
    }

    #[test]
    fn never_more_wait_than_may_and_who_finds_no_room_is_not_asked_for() {
        let (writer, takes, go) = led();
        let first = spend(writer.inbox(), 0);
        takes.recv().unwrap();
        let waiting = [1, 2, 3, 4].map(|byte| spend(writer.inbox(), byte));
        let mut asked = false;
        let one_too_many = writer.inbox().spend(mark(5), None, |()| {
            asked = true;
            Ok(())
        });
        assert!(unavailable(&one_too_many.wait()) && !asked);
        drop(go);
        assert_eq!(first.wait(), Ok(()));
        assert!(waiting.into_iter().all(|ticket| ticket.wait() == Ok(())));
    }

    #[test]
    fn what_the_set_does_not_admit_never_waits() {
        let (writer, takes, _go) = led();
        let refused = writer.inbox().spend(mark(1), None, |()| Err(SpendError::AlreadySpent));
        assert_eq!(refused.wait(), Err(SpendError::AlreadySpent));
        assert!(takes.recv_timeout(Duration::from_millis(50)).is_err());
    }

    #[test]
    fn closing_lets_the_writer_finish_what_waits() {
        let (writer, takes, go) = led();
        let first = spend(writer.inbox(), 1);
        takes.recv().unwrap();
        let second = spend(writer.inbox(), 2);
        drop(go);
        drop(writer);
        assert_eq!((first.wait(), second.wait()), (Ok(()), Ok(())));
    }

    #[test]
    fn an_inbox_that_refuses_turns_everyone_away_until_it_admits_again() {
        let inbox = Inbox::new(4, ());
        let waiting = [spend(&inbox, 1), spend(&inbox, 2)];
        inbox.refuse("gone");
        for ticket in waiting {
            assert_eq!(ticket.wait(), Err(SpendError::Unavailable("gone".into())));
        }
        assert!(unavailable(&spend(&inbox, 3).wait()) && unavailable(&inbox.ask(|()| Ok(()))));
        inbox.admit(|()| ());
        assert_eq!(inbox.ask(|()| Ok(())), Ok(()));
        let _waits = spend(&inbox, 4);
        assert_eq!(inbox.next(all).unwrap().len(), 1);
    }

    #[test]
    fn a_writer_that_panics_leaves_nobody_waiting_and_an_earlier_reason_stays() {
        let writer = Writer::start(Inbox::new(4, ()), "panics", |inbox| {
            let _dropped_by_the_panic = inbox.next(all);
            panic!("on purpose");
        });
        assert!(unavailable(&spend(writer.inbox(), 1).wait()));
        while writer.inbox().ask(|()| Ok(())).is_ok() {
            std::thread::yield_now();
        }
        assert!(unavailable(&spend(writer.inbox(), 2).wait()));
        let stopped = Writer::start(Inbox::new(4, ()), "stops", |inbox| inbox.refuse("the disk is gone"));
        while stopped.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            std::thread::yield_now();
        }
        assert_eq!(spend(stopped.inbox(), 1).wait(), Err(SpendError::Unavailable("the disk is gone".into())));
    }

    #[test]
    fn a_pause_ends_when_the_inbox_closes() {
        let inbox = Arc::new(Inbox::new(4, ()));
        assert!(inbox.pause(Duration::from_millis(1)));
        let for_thread = Arc::clone(&inbox);
        let pausing = std::thread::spawn(move || for_thread.pause(Duration::from_secs(600)));
        inbox.close();
        assert!(!pausing.join().unwrap());
        assert!(inbox.is_closing());
    }
}

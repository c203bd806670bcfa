//! What may happen to a connection beside its next request: an answer that had to wait, the end, a look after it.
//!
//! All of it is rare, and a look at each after every request costs as much as the request. So whatever happens here
//! raises a flag, and nothing is looked at until one is up.

use core::future::Future;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::sync::Arc;
use std::task::Wake;

use obol_ipc::frame::EncodedFrame;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep};

/// How often a connection in use is looked after.
const LOOK_AFTER: Duration = Duration::from_secs(1);
/// How often one that is silent is.
const LOOK_AFTER_SILENT: Duration = Duration::from_secs(3_600);

/// What happened.
pub(super) enum Event {
    /// An answer has come that had to wait.
    Answer(EncodedFrame),
    /// The connection is to end.
    End,
    /// It is time to look after it.
    Due,
}

/// See the module's header.
pub(super) struct SideEvents<E> {
    answers: mpsc::Receiver<EncodedFrame>,
    end: Pin<Box<E>>,
    idle: IdleCheck,
    flag: Option<Arc<WakeFlag>>,
}

/// Raised by what happened, for the task that serves the connection.
struct WakeFlag {
    raised: AtomicBool,
    server: Waker,
}

impl Wake for WakeFlag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.raised.store(true, Ordering::Release);
        self.server.wake_by_ref();
    }
}

impl<E: Future<Output = ()>> SideEvents<E> {
    /// `end` resolves when the connection is to end.
    pub(super) fn new(answers: mpsc::Receiver<EncodedFrame>, end: E) -> Self {
        Self { answers, end: Box::pin(end), idle: IdleCheck::new(), flag: None }
    }

    /// What happened, if anything did.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        let flag = match self.flag.take() {
            Some(flag) if flag.server.will_wake(context.waker()) => flag,
            // The first time, everything is looked at.
            _ => Arc::new(WakeFlag { raised: AtomicBool::new(true), server: context.waker().clone() }),
        };
        let event = if flag.raised.load(Ordering::Acquire) { self.look(&flag) } else { Poll::Pending };
        self.flag = Some(flag);
        event
    }

    fn look(&mut self, flag: &Arc<WakeFlag>) -> Poll<Event> {
        flag.raised.store(false, Ordering::Release);
        let event = self.poll_all(flag);
        if event.is_ready() {
            // There may be more.
            flag.raised.store(true, Ordering::Release);
        }
        event
    }

    fn poll_all(&mut self, flag: &Arc<WakeFlag>) -> Poll<Event> {
        let waker = Waker::from(Arc::clone(flag));
        let context = &mut Context::from_waker(&waker);
        if let Poll::Ready(Some(frame)) = self.answers.poll_recv(context) {
            return Poll::Ready(Event::Answer(frame));
        }
        if self.end.as_mut().poll(context).is_ready() {
            return Poll::Ready(Event::End);
        }
        self.idle.poll_due(context).map(|()| Event::Due)
    }

    /// Another answer that is there already.
    pub(super) fn next_answer(&mut self) -> Option<EncodedFrame> {
        self.answers.try_recv().ok()
    }

    /// Notes that the peer does something.
    pub(super) fn awake(&mut self) {
        if self.idle.awake() {
            self.look_again();
        }
    }

    /// When it is due: whether nothing happened since the last time. Not so while half a request waits for its end.
    pub(super) fn was_silent(&mut self, half: bool) -> bool {
        let silent = self.idle.was_silent(half);
        self.look_again();
        silent
    }

    /// The timer has to be looked at once for each time it is set.
    fn look_again(&self) {
        if let Some(flag) = &self.flag {
            flag.raised.store(true, Ordering::Release);
        }
    }

    /// The answers that are still to come.
    pub(super) fn into_answers(self) -> mpsc::Receiver<EncodedFrame> {
        self.answers
    }
}

/// A timer for what has to be looked after now and then. It runs slowly while nothing happens, so that thousands of
/// silent connections cost nothing.
struct IdleCheck {
    timer: Pin<Box<Sleep>>,
    active: bool,
    slow: bool,
}

impl IdleCheck {
    fn new() -> Self {
        Self { timer: Box::pin(sleep(LOOK_AFTER)), active: true, slow: false }
    }

    /// Notes that something happens; tells whether the timer was set anew for that.
    fn awake(&mut self) -> bool {
        self.active = true;
        let slow = core::mem::take(&mut self.slow);
        if slow {
            self.timer.as_mut().reset(Instant::now() + LOOK_AFTER);
        }
        slow
    }

    fn poll_due(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.timer.as_mut().poll(context)
    }

    /// Whether nothing happened since the last time; sets the timer again, and not to slow while half a request waits
    /// for its end.
    fn was_silent(&mut self, half: bool) -> bool {
        let silent = !core::mem::take(&mut self.active);
        self.slow = silent && !half;
        let pause = if self.slow { LOOK_AFTER_SILENT } else { LOOK_AFTER };
        self.timer.as_mut().reset(Instant::now() + pause);
        silent
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::AtomicUsize;

    use obol_ipc::frame;
    use tokio::sync::oneshot;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn nothing_is_looked_at_until_its_flag_is_up_and_nothing_is_missed() {
        let looks = Arc::new(AtomicUsize::new(0));
        let (answer, answers) = mpsc::channel(4);
        let (end, mut ended) = oneshot::channel::<()>();
        let counted = Arc::clone(&looks);
        let end_of_it = core::future::poll_fn(move |context| {
            counted.fetch_add(1, Ordering::Relaxed);
            Pin::new(&mut ended).poll(context).map(|_| ())
        });
        let mut side_events = SideEvents::new(answers, end_of_it);
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let context = &mut Context::from_waker(&waker);

        for _ in 0..3 {
            assert!(side_events.poll(context).is_pending());
        }
        assert_eq!(looks.load(Ordering::Relaxed), 1);

        for _ in 0..2 {
            answer.try_send(frame::encode(b"late").unwrap()).unwrap();
        }
        assert!(woken.0.load(Ordering::Relaxed) > 0);
        for _ in 0..2 {
            assert!(matches!(side_events.poll(context), Poll::Ready(Event::Answer(_))));
        }
        assert!(side_events.poll(context).is_pending());

        end.send(()).unwrap();
        assert!(matches!(side_events.poll(context), Poll::Ready(Event::End)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_is_looked_after_seldom_and_one_that_awakes_soon() {
        let (_answer, answers) = mpsc::channel(1);
        let mut side_events = SideEvents::new(answers, core::future::pending());
        let began = Instant::now();
        let due = async |side_events: &mut SideEvents<_>| {
            assert!(matches!(core::future::poll_fn(|context| side_events.poll(context)).await, Event::Due));
            began.elapsed().as_secs()
        };
        assert_eq!(due(&mut side_events).await, 1);
        assert!(!side_events.was_silent(false), "it has only begun");
        assert_eq!(due(&mut side_events).await, 2);
        assert!(side_events.was_silent(false));
        assert_eq!(due(&mut side_events).await, 2 + LOOK_AFTER_SILENT.as_secs());
        assert!(side_events.was_silent(false));
        side_events.awake();
        assert_eq!(due(&mut side_events).await, 3 + LOOK_AFTER_SILENT.as_secs());
    }
}

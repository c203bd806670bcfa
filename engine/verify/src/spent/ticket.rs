//! The answer to a spend: one that can be awaited in any runtime, or waited for in a plain thread.

use core::future::Future;
use core::pin::Pin;
use core::task::Waker;
use core::task::{Context, Poll};
use std::sync::Arc;
use std::task::Wake;
use std::thread::Thread;

use super::SpendError;

const GONE: SpendError = SpendError::Unavailable(std::borrow::Cow::Borrowed("the spent set has stopped"));

/// A spend under way. Dropping it does not undo the spend.
#[derive(Debug)]
#[must_use = "the token is spent only when this resolves to Ok"]
pub struct SpendTicket(State);

#[derive(Debug)]
enum State {
    Known(Result<(), SpendError>),
    Pending(oneshot::AsyncReceiver<Result<(), SpendError>>),
}

/// The other end of a pending [`SpendTicket`]. Dropped without an answer, it refuses.
#[derive(Debug)]
pub struct Spender(oneshot::Sender<Result<(), SpendError>>);

impl Spender {
    /// Answers. Whoever asked may be gone; what was spent stays spent.
    pub fn resolve(self, result: Result<(), SpendError>) {
        let _asker_gone = self.0.send(result);
    }
}

impl SpendTicket {
    /// An answer that is known at once.
    pub fn ready(result: Result<(), SpendError>) -> Self {
        Self(State::Known(result))
    }

    /// An answer that will come.
    pub fn pending() -> (Spender, Self) {
        let (sender, receiver) = oneshot::async_channel();
        (Spender(sender), Self(State::Pending(receiver)))
    }

    /// Waits for the answer, blocking the thread.
    ///
    /// # Errors
    ///
    /// [`SpendError`].
    pub fn wait(self) -> Result<(), SpendError> {
        block_on(self)
    }
}

impl Future for SpendTicket {
    type Output = Result<(), SpendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Known(result) => Poll::Ready(result.clone()),
            State::Pending(receiver) => {
                Pin::new(receiver).poll(context).map(|answer| answer.unwrap_or(Err(GONE)))
            }
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Drives a future to its end on this thread. For futures that are woken by another thread.
pub(crate) fn block_on<F: Future + Unpin>(mut future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match Pin::new(&mut future).poll(&mut context) {
            Poll::Ready(output) => return output,
            // A wake-up between the poll and this line is not lost: the next park returns at once.
            Poll::Pending => std::thread::park(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_waits_until_another_answers() {
        let (spender, ticket) = SpendTicket::pending();
        let answering = std::thread::spawn(move || spender.resolve(Err(SpendError::AlreadySpent)));
        assert_eq!(ticket.wait(), Err(SpendError::AlreadySpent));
        answering.join().unwrap();
    }

    #[test]
    fn an_answer_that_never_comes_is_a_refusal() {
        let (spender, ticket) = SpendTicket::pending();
        drop(spender);
        assert_eq!(ticket.wait(), Err(GONE));
    }
}

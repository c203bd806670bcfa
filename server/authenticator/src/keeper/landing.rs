//! Where a browser on this machine brings a human's yes to a registration: open while one is waited for.
//!
//! Only the registration that is waited for is taken, with a code of the right form, from a page that was sent here by name and number: a
//! name that somebody has point here opens nothing.

use std::sync::Arc;

use obol_ipc::auth::RegistrationState;
use obol_probe::landing::{self, Visit};
use obol_probe::stop::Stop;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::Order;

/// An open port. Dropping it closes it.
#[derive(Debug)]
pub(super) struct Landing {
    listening: JoinHandle<()>,
    stop: Stop,
}

impl Landing {
    pub(super) fn open(listener: TcpListener, registration: &str, orders: mpsc::WeakSender<Order>) -> Self {
        let awaited = Arc::new(Awaited { begins: begins(registration), orders });
        // A browser outlives the port, which is closed once the yes is taken: it is told so.
        let stop = Stop::new();
        let until = stop.clone();
        let listening = tokio::spawn(async move {
            landing::listen(listener, &until, move |visit| serve(visit, Arc::clone(&awaited))).await;
        });
        Self { listening, stop }
    }

    pub(super) fn is_open(&self) -> bool {
        !self.listening.is_finished()
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.stop.say();
    }
}

struct Awaited {
    /// What is asked for by whoever brings the yes, up to the code.
    begins: String,
    orders: mpsc::WeakSender<Order>,
}

fn begins(registration: &str) -> String {
    format!("registered?reg={registration}&code=")
}

async fn serve(visit: Visit, awaited: Arc<Awaited>) {
    let (status, text) = match landing::code(visit.target(), &awaited.begins) {
        None => ("404 Not Found", "This page does not exist."),
        Some(shown) => match complete(shown, &awaited).await {
            true => ("200 OK", "The agent is registered. You can close this page."),
            false => (
                "403 Forbidden",
                "The agent was not registered. Its terminal says why; run `obol register` there again.",
            ),
        },
    };
    visit.tell(status, text).await;
}

async fn complete(shown: &str, awaited: &Awaited) -> bool {
    let (reply, answer) = oneshot::channel();
    let Some(orders) = awaited.orders.upgrade() else { return false };
    if orders.send(Order::Complete(shown.to_owned(), reply)).await.is_err() {
        return false;
    }
    matches!(answer.await, Ok(Ok(seen)) if seen.state == RegistrationState::Active)
}

#[cfg(test)]
mod tests {
    use obol_probe::landing::CODE_LETTERS;

    use super::*;

    #[test]
    fn only_the_registration_that_is_waited_for_is_completed() {
        let shown = "A".repeat(CODE_LETTERS);
        let awaited = begins("reg_a");
        assert_eq!(landing::code(&format!("registered?reg=reg_a&code={shown}"), &awaited), Some(&*shown));
        for bad in [
            format!("registered?reg=reg_b&code={shown}"),
            format!("registered?reg=reg_a&code={shown}&x=1"),
            "registered?reg=reg_a&code=short".to_owned(),
            String::new(),
        ] {
            assert_eq!(landing::code(&bad, &awaited), None, "{bad}");
        }
    }
}

//! Where a browser on this machine begins a login, and where it brings the human's yes: a port of loopback, open while one is
//! waited for.
//!
//! The address that is shown has a secret of its own, and leads on to the service's page: whoever else on this machine finds the
//! port learns nothing of the login. What is brought is taken only in the form that is waited for, under our own name and number.

use core::time::Duration;
use std::sync::Arc;

use obol_handshake::{Random as _, SystemRandom};
use obol_probe::landing::{self, Visit};
use obol_probe::stop::Stop;
use obol_secret::text::to_base64url;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::exit::Outcome;

/// What is waited for, once it is known.
#[derive(Clone, Debug)]
struct Awaited {
    login_id: String,
    /// The service's page.
    url: String,
}

#[derive(Debug)]
struct Shared {
    port: u16,
    /// What the address begins with that is shown.
    secret: String,
    awaited: Mutex<Option<Awaited>>,
    brought: mpsc::Sender<Brought>,
}

/// An open port. Dropping it closes it.
#[derive(Debug)]
pub(super) struct Landing {
    shared: Arc<Shared>,
    brought: mpsc::Receiver<Brought>,
    stop: Stop,
}

/// What a browser brought, and the browser, which waits for an answer.
#[derive(Debug)]
pub(super) struct Brought {
    code: Zeroizing<String>,
    visit: Visit,
}

impl Landing {
    pub(super) async fn open() -> Outcome<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let mut secret = [0; 16];
        SystemRandom.fill(&mut secret);
        let (sender, brought) = mpsc::channel(1);
        let shared = Arc::new(Shared {
            port: listener.local_addr()?.port(),
            secret: to_base64url(&secret),
            awaited: Mutex::default(),
            brought: sender,
        });
        let heard = Arc::clone(&shared);
        let stop = Stop::new();
        let until = stop.clone();
        tokio::spawn(async move {
            landing::listen(listener, &until, move |visit| serve(visit, Arc::clone(&heard))).await;
        });
        Ok(Self { shared, brought, stop })
    }

    pub(super) fn port(&self) -> u16 {
        self.shared.port
    }

    /// The address for a browser of this machine.
    pub(super) fn link(&self) -> String {
        format!("http://127.0.0.1:{}/{}", self.shared.port, self.shared.secret)
    }

    pub(super) fn expect(&self, login_id: &str, url: &str) {
        *self.shared.awaited.lock() = Some(Awaited { login_id: login_id.to_owned(), url: url.to_owned() });
    }

    /// What a browser brings, if one does within this time.
    pub(super) async fn next(&mut self, within: Duration) -> Option<Brought> {
        timeout(within, self.brought.recv()).await.ok().flatten()
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.stop.say();
    }
}

impl Brought {
    pub(super) fn code(&self) -> &str {
        &self.code
    }

    pub(super) async fn tell(self, is_done: bool) {
        let (status, text) = match is_done {
            true => ("200 OK", "You are logged in in the terminal. You can close this page."),
            false => {
                ("403 Forbidden", "The login failed. The terminal says why; run obol login there again.")
            }
        };
        self.visit.tell(status, text).await;
    }
}

async fn serve(visit: Visit, shared: Arc<Shared>) {
    let awaited = shared.awaited.lock().clone();
    let meant = awaited.as_ref().and_then(|awaited| meant(visit.target(), &shared, awaited));
    match meant {
        None => visit.tell("404 Not Found", "This page does not exist.").await,
        Some(Meant::Begins(url)) => visit.lead_on(&url).await,
        Some(Meant::Brings(code)) => {
            let brought = Brought { code, visit };
            // Whoever waited is gone, or takes another one: this browser is told nothing.
            let _not_taken = shared.brought.try_send(brought);
        }
    }
}

/// What a request means that is meant for us.
#[derive(PartialEq, Eq)]
enum Meant {
    Begins(String),
    Brings(Zeroizing<String>),
}

fn meant(target: &str, shared: &Shared, awaited: &Awaited) -> Option<Meant> {
    if target == shared.secret {
        return Some(Meant::Begins(awaited.url.clone()));
    }
    let begins = format!("logged-in?login={}&code=", awaited.login_id);
    landing::code(target, &begins).map(|code| Meant::Brings(Zeroizing::new(code.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_waited_for_is_taken() {
        let (brought, _receiver) = mpsc::channel(1);
        let shared = Shared { port: 7, secret: "s3cret".to_owned(), awaited: Mutex::default(), brought };
        let awaited =
            Awaited { login_id: "log_a".to_owned(), url: "https://as.example/operate/log_a".to_owned() };
        let shown = "A".repeat(landing::CODE_LETTERS);
        assert!(meant("s3cret", &shared, &awaited) == Some(Meant::Begins(awaited.url.clone())));
        let good = format!("logged-in?login=log_a&code={shown}");
        assert!(meant(&good, &shared, &awaited) == Some(Meant::Brings(Zeroizing::new(shown.clone()))));
        for bad in [
            format!("logged-in?login=log_b&code={shown}"),
            format!("logged-in?login=log_a&code={shown}&x=1"),
            "logged-in?login=log_a&code=short".to_owned(),
            "s3cre".to_owned(),
            "s3crets".to_owned(),
            String::new(),
        ] {
            assert!(meant(&bad, &shared, &awaited).is_none(), "{bad}");
        }
    }
}

//! Where a browser on this machine begins a login, and where it brings the human's yes: a port of loopback, open while one is
//! waited for.
//!
//! The address that is shown has a secret of its own, and leads on to the service's page: whoever else on this machine finds the
//! port learns nothing of the login. What is brought is taken only in the form that is waited for, under our own name and number.

use core::time::Duration;
use std::sync::Arc;

use obol_handshake::{Random as _, SystemRandom};
use obol_secret::text::to_base64url;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use zeroize::Zeroizing;

use crate::exit::Outcome;

/// The longest request that is read, in bytes.
const MAX_REQUEST_BYTES: usize = 8 << 10;
/// How long a request may take to arrive, and its answer to be taken.
const PATIENCE: Duration = Duration::from_secs(5);
/// Connections at a time: browsers open some that they do not use.
const MAX_CONNECTIONS: usize = 16;
/// How long is waited after a failure to accept.
const PAUSE: Duration = Duration::from_millis(100);
/// Letters of what a browser brings: 256 bits.
const CODE_LETTERS: usize = 43;

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
    listening: JoinHandle<()>,
}

/// What a browser brought, and the browser, which waits for an answer.
#[derive(Debug)]
pub(super) struct Brought {
    code: Zeroizing<String>,
    stream: TcpStream,
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
        let listening = tokio::spawn(listen(listener, Arc::clone(&shared)));
        Ok(Self { shared, brought, listening })
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
        self.listening.abort();
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
                ("403 Forbidden", "Nobody was logged in. The terminal says why; run obol login there again.")
            }
        };
        answer(self.stream, status, "", text).await;
    }
}

async fn listen(listener: TcpListener, shared: Arc<Shared>) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    serve(stream, &shared).await;
                    drop(permit);
                });
            }
            Err(_) => sleep(PAUSE).await,
        }
    }
}

async fn serve(mut stream: TcpStream, shared: &Shared) {
    let Ok(Some(request)) = timeout(PATIENCE, read(&mut stream)).await else { return };
    let awaited = shared.awaited.lock().clone();
    match awaited.as_ref().and_then(|awaited| meant(&request, shared, awaited)) {
        None => answer(stream, "404 Not Found", "", "There is nothing here.").await,
        Some(Meant::Begins(url)) => {
            let location = format!("Location: {url}\r\n");
            answer(stream, "303 See Other", &location, "Go on at the service.").await;
        }
        Some(Meant::Brings(code)) => {
            let brought = Brought { code: Zeroizing::new(code.to_owned()), stream };
            // Whoever waited is gone, or takes another one: this browser is told nothing.
            let _not_taken = shared.brought.try_send(brought);
        }
    }
}

/// The head of a request.
async fn read(stream: &mut TcpStream) -> Option<String> {
    let mut read = Vec::new();
    loop {
        if stream.read_buf(&mut read).await.ok()? == 0 || read.len() > MAX_REQUEST_BYTES {
            return None;
        }
        if read.windows(4).any(|end| end == b"\r\n\r\n") {
            return String::from_utf8(read).ok();
        }
    }
}

/// What a request means that is meant for us.
#[derive(Debug, PartialEq, Eq)]
enum Meant<'a> {
    Begins(&'a str),
    Brings(&'a str),
}

fn meant<'a>(request: &'a str, shared: &Shared, awaited: &'a Awaited) -> Option<Meant<'a>> {
    let mut lines = request.split("\r\n");
    let target = lines.next()?.strip_prefix("GET /")?.strip_suffix(" HTTP/1.1")?;
    let mut hosts = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| name.eq_ignore_ascii_case("host"));
    let (host, None) = (hosts.next()?.1.trim(), hosts.next()) else { return None };
    if host != format!("127.0.0.1:{}", shared.port) {
        return None;
    }
    if target == shared.secret {
        return Some(Meant::Begins(&awaited.url));
    }
    let code = target.strip_prefix("logged-in?login=")?;
    let code = code.strip_prefix(awaited.login_id.as_str())?.strip_prefix("&code=")?;
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (code.len() == CODE_LETTERS && code.bytes().all(is_letter)).then_some(Meant::Brings(code))
}

async fn answer(mut stream: TcpStream, status: &str, more: &str, text: &str) {
    let page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>Obol</title><h1>{text}</h1></html>"
    );
    let answer = format!(
        "HTTP/1.1 {status}\r\n{more}Content-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\
         Content-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\nReferrer-Policy: no-referrer\r\n\
         Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\r\n{page}",
        page.len()
    );
    let told = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    };
    // Whoever went away has seen enough.
    let _gone = timeout(PATIENCE, told).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_browser_that_is_waited_for_is_heard() {
        let (brought, _receiver) = mpsc::channel(1);
        let shared = Shared { port: 7, secret: "s3cret".to_owned(), awaited: Mutex::default(), brought };
        let awaited =
            Awaited { login_id: "log_a".to_owned(), url: "https://as.example/operate/log_a".to_owned() };
        let shown = "A".repeat(CODE_LETTERS);
        let request =
            |target: &str, host: &str| format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nX: y\r\n\r\n");
        let begins = request("/s3cret", "127.0.0.1:7");
        assert_eq!(meant(&begins, &shared, &awaited), Some(Meant::Begins(&awaited.url)));
        let good = request(&format!("/logged-in?login=log_a&code={shown}"), "127.0.0.1:7");
        assert_eq!(meant(&good, &shared, &awaited), Some(Meant::Brings(&shown)));
        for bad in [
            request(&format!("/logged-in?login=log_b&code={shown}"), "127.0.0.1:7"),
            request(&format!("/logged-in?login=log_a&code={shown}"), "rebound.example:7"),
            request(&format!("/logged-in?login=log_a&code={shown}"), "127.0.0.1:8"),
            request(&format!("/logged-in?login=log_a&code={shown}&x=1"), "127.0.0.1:7"),
            request("/logged-in?login=log_a&code=short", "127.0.0.1:7"),
            request("/s3cre", "127.0.0.1:7"),
            request("/", "127.0.0.1:7"),
            begins.replace("127.0.0.1:7", "rebound.example:7"),
            good.replace("GET", "POST"),
            good.replace("X: y", "Host: rebound.example:7"),
        ] {
            assert_eq!(meant(&bad, &shared, &awaited), None, "{bad}");
        }
    }
}

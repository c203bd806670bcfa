//! Where a browser on this machine brings a human's yes: a port of loopback, open while one is waited for.
//!
//! Only the registration that is waited for is taken, with a code of the right form, from a page that was sent here by name and number: a
//! name that somebody has point here opens nothing.

use core::time::Duration;
use std::sync::Arc;

use obol_ipc::auth::RegistrationState;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::Order;

/// The longest request that is read, in bytes.
const MAX_REQUEST_BYTES: usize = 8 << 10;
/// How long a request may take to arrive, and its answer to be taken.
const PATIENCE: Duration = Duration::from_secs(5);
/// Connections at a time: browsers open some that they do not use.
const MAX_CONNECTIONS: usize = 16;
/// How long is waited after a failure to accept.
const PAUSE: Duration = Duration::from_millis(100);
/// Letters of a code that a browser brings: 256 bits.
const CODE_LETTERS: usize = 43;

/// An open port. Dropping it closes it.
#[derive(Debug)]
pub(super) struct Landing(JoinHandle<()>);

impl Landing {
    pub(super) fn open(listener: TcpListener, registration: &str, orders: mpsc::WeakSender<Order>) -> Self {
        let port = listener.local_addr().map_or(0, |address| address.port());
        let awaited = Arc::new(Awaited { registration: registration.to_owned(), port, orders });
        Self(tokio::spawn(listen(listener, awaited)))
    }

    pub(super) fn is_open(&self) -> bool {
        !self.0.is_finished()
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Awaited {
    registration: String,
    port: u16,
    orders: mpsc::WeakSender<Order>,
}

async fn listen(listener: TcpListener, awaited: Arc<Awaited>) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let awaited = Arc::clone(&awaited);
                // It outlives the port, which is closed once the yes is taken: the browser is told so.
                tokio::spawn(async move {
                    serve(stream, &awaited).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a browser could not be heard");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn serve(mut stream: TcpStream, awaited: &Awaited) {
    let Ok(Some(request)) = timeout(PATIENCE, read(&mut stream)).await else { return };
    let (status, text) = match code(&request, awaited) {
        None => ("404 Not Found", "There is nothing here."),
        Some(shown) => match complete(shown, awaited).await {
            true => ("200 OK", "The agent is registered. You can close this page."),
            false => (
                "403 Forbidden",
                "The agent was not registered. Its terminal says why; run `obol register` there again.",
            ),
        },
    };
    let page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>Obol</title><h1>{text}</h1></html>"
    );
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\
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

/// What the request brings, if it is the one that is waited for.
fn code<'r>(request: &'r str, awaited: &Awaited) -> Option<&'r str> {
    let mut lines = request.split("\r\n");
    let target = lines.next()?.strip_prefix("GET /registered?")?.strip_suffix(" HTTP/1.1")?;
    let mut hosts = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| name.eq_ignore_ascii_case("host"));
    let (host, None) = (hosts.next()?.1.trim(), hosts.next()) else { return None };
    if host != format!("127.0.0.1:{}", awaited.port) {
        return None;
    }
    let code =
        target.strip_prefix("reg=")?.strip_prefix(awaited.registration.as_str())?.strip_prefix("&code=")?;
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (code.len() == CODE_LETTERS && code.bytes().all(is_letter)).then_some(code)
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
    use super::*;

    #[test]
    fn only_the_browser_that_is_waited_for_is_heard() {
        let orders = mpsc::channel(1).0.downgrade();
        let awaited = Awaited { registration: "reg_a".to_owned(), port: 7, orders };
        let shown = "A".repeat(CODE_LETTERS);
        let request =
            |target: &str, host: &str| format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nX: y\r\n\r\n");
        let good = request(&format!("/registered?reg=reg_a&code={shown}"), "127.0.0.1:7");
        assert_eq!(code(&good, &awaited), Some(shown.as_str()));
        for bad in [
            request(&format!("/registered?reg=reg_b&code={shown}"), "127.0.0.1:7"),
            request(&format!("/registered?reg=reg_a&code={shown}"), "rebound.example:7"),
            request(&format!("/registered?reg=reg_a&code={shown}"), "127.0.0.1:8"),
            request(&format!("/registered?reg=reg_a&code={shown}&x=1"), "127.0.0.1:7"),
            request("/registered?reg=reg_a&code=short", "127.0.0.1:7"),
            request("/", "127.0.0.1:7"),
            good.replace("GET", "POST"),
            good.replace("X: y", "Host: rebound.example:7"),
        ] {
            assert_eq!(code(&bad, &awaited), None, "{bad}");
        }
    }
}

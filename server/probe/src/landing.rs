//! A port of loopback that a browser of this machine is sent to: what a human decided on a page elsewhere comes back to the program
//! that asked.
//!
//! Whoever else finds the port learns nothing: a request is heard only if it names this very address, and what it brings has one form.

use core::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::accept::{Limits, Place, accept};
use crate::stop::Stop;

/// The longest request that is read, in bytes.
const MAX_REQUEST_BYTES: usize = 8 << 10;
/// How long a request may take to arrive, and its answer to be taken.
const PATIENCE: Duration = Duration::from_secs(5);
/// Browsers open connections that they do not use. One that brought a yes waits for what becomes of it, which a service elsewhere says.
const LIMITS: Limits = Limits { max_connections: 16, drain_timeout: Duration::from_secs(120) };
/// Letters of a code that a browser brings: 256 bits.
pub const CODE_LETTERS: usize = 43;

/// A browser that asks for something, and waits for an answer.
#[derive(Debug)]
pub struct Visit {
    target: String,
    stream: TcpStream,
}

impl Visit {
    /// What it asks for, without the stroke in front. Empty where the request was not meant for this port.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Answers with a page of one sentence.
    pub async fn tell(self, status: &str, text: &str) {
        self.answer(status, "", text).await;
    }

    /// Sends it on to this address.
    pub async fn lead_on(self, url: &str) {
        self.answer("303 See Other", &format!("Location: {url}\r\n"), "Go on at the service.").await;
    }

    async fn answer(mut self, status: &str, more: &str, text: &str) {
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
            self.stream.write_all(answer.as_bytes()).await?;
            self.stream.shutdown().await
        };
        // Whoever went away has seen enough.
        let _gone = timeout(PATIENCE, told).await;
    }
}

/// Hears browsers until the word to stop is said. Those that are heard already are served to their end.
pub async fn listen<F>(
    listener: TcpListener,
    stop: &Stop,
    serve: impl Fn(Visit) -> F + Clone + Send + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let Ok(port) = listener.local_addr().map(|address| address.port()) else { return };
    let each = |mut stream, _, place: Place<'_>| {
        let serve = serve.clone();
        place.serve(async move {
            if let Ok(Some(request)) = timeout(PATIENCE, read(&mut stream)).await {
                let target = target(&request, port).unwrap_or_default().to_owned();
                serve(Visit { target, stream }).await;
            }
        });
    };
    let _said_in_the_log = accept(listener, LIMITS, stop, core::future::pending(), each).await;
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

/// What is asked for, if it is this port that is meant.
fn target(request: &str, port: u16) -> Option<&str> {
    let mut lines = request.split("\r\n");
    let target = lines.next()?.strip_prefix("GET /")?.strip_suffix(" HTTP/1.1")?;
    let mut hosts = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| name.eq_ignore_ascii_case("host"));
    let (host, None) = (hosts.next()?.1.trim(), hosts.next()) else { return None };
    (host == format!("127.0.0.1:{port}")).then_some(target)
}

/// The code at the end of a target that begins like this, if it has the form of one.
pub fn code<'t>(target: &'t str, begins: &str) -> Option<&'t str> {
    let code = target.strip_prefix(begins)?;
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (code.len() == CODE_LETTERS && code.bytes().all(is_letter)).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_request_that_names_this_port_is_heard() {
        let request =
            |target: &str, host: &str| format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nX: y\r\n\r\n");
        let good = request("/registered?reg=a", "127.0.0.1:7");
        assert_eq!(target(&good, 7), Some("registered?reg=a"));
        for bad in [
            request("/registered?reg=a", "rebound.example:7"),
            request("/registered?reg=a", "127.0.0.1:8"),
            request("/registered?reg=a", "127.0.0.1"),
            good.replace("GET", "POST"),
            good.replace("HTTP/1.1", "HTTP/1.0"),
            good.replace("X: y", "Host: rebound.example:7"),
            good.replace("Host", "Hosts"),
        ] {
            assert_eq!(target(&bad, 7), None, "{bad}");
        }
    }

    #[test]
    fn a_code_has_one_form() {
        let shown = "A".repeat(CODE_LETTERS);
        let begins = "registered?reg=a&code=";
        assert_eq!(code(&format!("{begins}{shown}"), begins), Some(shown.as_str()));
        for bad in [
            format!("registered?reg=b&code={shown}"),
            format!("{begins}{shown}&x=1"),
            format!("{begins}short"),
            format!("{begins}{}", shown.replacen('A', "<", 1)),
            String::new(),
        ] {
            assert_eq!(code(&bad, begins), None, "{bad}");
        }
    }
}

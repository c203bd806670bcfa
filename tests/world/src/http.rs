//! A client of a resource server on this machine that never sends anything twice.

use core::time::Duration;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::TOOL;

/// One connection that is kept alive while it lasts, and made again when it is needed again.
pub struct Http {
    port: u16,
    stream: Option<BufReader<TcpStream>>,
}

impl Http {
    pub fn new(port: u16) -> Self {
        Self { port, stream: None }
    }

    pub fn get(&mut self, path: &str) -> Option<(u16, String)> {
        self.exchange(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    }

    /// Presents a token for the fixture's tool: `OK`, or the code of the refusal; `None` if no answer came.
    pub fn present(&mut self, token: &str) -> Option<String> {
        self.present_for(token, TOOL)
    }

    /// The same for another tool.
    pub fn present_for(&mut self, token: &str, tool: &str) -> Option<String> {
        let body = json!({"token": token, "tool": tool, "action": "read", "resource": "docs/a"}).to_string();
        let length = body.len();
        let (status, answer) = self.exchange(&format!(
            "POST /v1/verify HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n\
             {body}"
        ))?;
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(status == 200, answer["ok"] == true, "{answer}");
        Some(if status == 200 { "OK" } else { answer["code"].as_str().unwrap() }.to_owned())
    }

    pub fn exchange(&mut self, request: &str) -> Option<(u16, String)> {
        let answer = self.try_exchange(request);
        if answer.is_none() {
            // Never sent again on its own: the token may have been spent.
            self.stream = None;
        }
        answer
    }

    fn try_exchange(&mut self, request: &str) -> Option<(u16, String)> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
            stream.set_nodelay(true).ok()?;
            self.stream = Some(BufReader::new(stream));
        }
        let stream = self.stream.as_mut()?;
        stream.get_mut().write_all(request.as_bytes()).ok()?;
        let (mut status, mut length) = (None, 0);
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if status.is_none() {
                status = Some(line.split(' ').nth(1)?.parse().ok()?);
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).ok()?;
        Some((status?, String::from_utf8(body).ok()?))
    }
}

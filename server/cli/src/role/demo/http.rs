//! The smallest HTTP client that can call one route of our own server: one request, one connection.

use core::net::SocketAddr;
use core::time::Duration;
use std::io::{Read, Write};
use std::net::TcpStream;

use obol_secret::json;
use serde_json::Value;

use crate::exit::{Failure, Outcome};

const PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer that is read, in bytes.
const MAX_ANSWER_BYTES: u64 = 64 << 10;

/// Calls `path` with a token, or without; gives back the status and, for a refusal, its code.
pub(crate) fn call(server: SocketAddr, path: &str, token: Option<&str>) -> Outcome<String> {
    let answer = exchange(server, path, token)
        .map_err(|error| Failure::other(format_args!("the resource server did not answer: {error}")))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).unwrap_or("no status");
    let code = json::parse::<Value>(body.as_bytes())
        .ok()
        .and_then(|body| Some(body.get("code")?.as_str()?.to_owned()));
    Ok(match code {
        Some(code) => format!("{status} {code}"),
        None => status.to_owned(),
    })
}

fn exchange(server: SocketAddr, path: &str, token: Option<&str>) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let authorization = token.map(|token| format!("Authorization: TBAC {token}\r\n")).unwrap_or_default();
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {server}\r\n{authorization}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER_BYTES).read_to_string(&mut answer)?;
    Ok(answer)
}

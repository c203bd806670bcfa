//! A WebSocket, once both sides agreed on it: bytes in both directions, until one side ends or nothing is said for too long.

use core::time::Duration;

use hyper::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split};
use tokio::sync::Notify;
use tokio::time::timeout;

/// How long either side may take to change the protocol.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is moved at a time, in bytes.
const PIECE_BYTES: usize = 16 << 10;

/// Whether a request asks for a WebSocket.
pub fn asks_for_websocket(headers: &HeaderMap) -> bool {
    let is_upgrade = |value: &HeaderValue| {
        let mut options = value.as_bytes().split(|byte| *byte == b',');
        options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
    };
    headers.get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
        && headers.get_all(CONNECTION).iter().any(is_upgrade)
}

/// Moves bytes between the two sides until one ends, or nothing is said for so long.
pub async fn run(inward: OnUpgrade, outward: OnUpgrade, silence: Duration) {
    let changed = timeout(PATIENCE, async { tokio::try_join!(inward, outward) }).await;
    let Ok(Ok((caller, server))) = changed else {
        tracing::debug!("a WebSocket was agreed on and not begun");
        return;
    };
    between(caller, server, silence).await;
}

async fn between(caller: Upgraded, server: Upgraded, silence: Duration) {
    let (from_caller, to_caller) = split(TokioIo::new(caller));
    let (from_server, to_server) = split(TokioIo::new(server));
    let moved = Notify::new();
    let quiet = async { while timeout(silence, moved.notified()).await.is_ok() {} };
    let both =
        async { tokio::join!(pump(from_caller, to_server, &moved), pump(from_server, to_caller, &moved)) };
    tokio::select! {
        _ = both => {}
        () = quiet => tracing::debug!("nothing was said on a WebSocket for too long"),
    }
}

/// Moves bytes one way, until they end.
async fn pump(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, moved: &Notify) {
    let mut piece = vec![0; PIECE_BYTES];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        moved.notify_one();
        if to.write_all(piece.get(..length).unwrap_or_default()).await.is_err() {
            break;
        }
    }
    let _gone = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_websocket_is_asked_for_by_both_headers() {
        for (connection, upgrade, is_one) in [
            ("Upgrade", "websocket", true),
            ("keep-alive, upgrade", "WebSocket", true),
            ("keep-alive", "websocket", false),
            ("upgrade", "h2c", false),
        ] {
            let mut sent = HeaderMap::new();
            sent.insert(CONNECTION, HeaderValue::from_static(connection));
            sent.insert(UPGRADE, HeaderValue::from_static(upgrade));
            assert_eq!(asks_for_websocket(&sent), is_one, "{connection} {upgrade}");
        }
    }
}

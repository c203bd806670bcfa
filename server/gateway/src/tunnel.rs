//! A WebSocket, once both sides agreed on it: bytes in both directions, until one side ends or nothing is said for too long.

use core::time::Duration;

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split};
use tokio::sync::Notify;
use tokio::time::timeout;

/// How long either side may take to change the protocol.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is moved at a time, in bytes.
const PIECE_BYTES: usize = 16 << 10;

/// Moves bytes until it is over.
pub(crate) async fn run(inward: OnUpgrade, outward: OnUpgrade, silence: Duration) {
    let changed = timeout(PATIENCE, async { tokio::try_join!(inward, outward) }).await;
    let Ok(Ok((agent, api))) = changed else {
        tracing::debug!("a WebSocket was agreed on and not begun");
        return;
    };
    between(agent, api, silence).await;
}

async fn between(agent: Upgraded, api: Upgraded, silence: Duration) {
    let (from_agent, to_agent) = split(TokioIo::new(agent));
    let (from_api, to_api) = split(TokioIo::new(api));
    let moved = Notify::new();
    let quiet = async { while timeout(silence, moved.notified()).await.is_ok() {} };
    let both = async { tokio::join!(pump(from_agent, to_api, &moved), pump(from_api, to_agent, &moved)) };
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

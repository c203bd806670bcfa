//! The connection that was used last, kept for a moment: who asks several things in a row, or opens session after session,
//! connects once.
//!
//! It is closed by itself before the service would close it, so agents that ask now and then cost the service no
//! connections. It may be dead all the same, and then the first message of a handshake is sent over another: that one may be
//! sent as often as one likes. What a third message may be, [`Uplink`](crate::Uplink) decides.

use core::time::Duration;
use std::time::Instant;

use tokio::task::JoinHandle;

use crate::connect::Connection;

/// How long it is kept without being used. The service waits for twice as long.
const IDLE: Duration = Duration::from_secs(5);
/// How old it may be to be used again. The service cuts off at 300 s, also in the middle of an answer.
const LONGEST_LIFE: Duration = Duration::from_secs(240);

/// See the module's header.
#[derive(Debug, Default)]
pub(crate) struct Kept(Option<Idle>);

/// A connection, and what closes it.
#[derive(Debug)]
struct Idle {
    connection: Connection,
    closing: JoinHandle<()>,
}

impl Kept {
    /// Keeps a connection that was answered to the end.
    pub(crate) fn put(&mut self, connection: Connection) {
        self.0 = None;
        let Some(driver) = connection.driver() else { return };
        if !connection.is_open() || connection.age(Instant::now()) >= LONGEST_LIFE {
            return;
        }
        let closing = tokio::spawn(async move {
            tokio::time::sleep(IDLE).await;
            driver.abort();
        });
        self.0 = Some(Idle { connection, closing });
    }

    /// The connection, if it is there still.
    pub(crate) fn take(&mut self) -> Option<Connection> {
        let Idle { connection, closing } = self.0.take()?;
        closing.abort();
        connection.is_open().then_some(connection)
    }
}

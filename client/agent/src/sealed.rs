//! Tools whose bodies are sealed, for requests whose body cannot be: the sidecar is asked, before a token is drawn for nothing.

use core::time::Duration;
use std::collections::HashMap;

use obol_client::AsyncClient;
use obol_ipc::names::{Audience, ToolName};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};

/// How old the sidecar's word may be.
const LASTS: Duration = Duration::from_secs(60);
/// The most tools of which it is kept.
const MAX_KEPT: usize = 1_024;

/// Whether tools take sealed bodies, as the sidecar said, and when.
#[derive(Default, Debug)]
pub(crate) struct Sealed(Mutex<HashMap<(ToolName, Audience), (bool, Instant)>>);

impl Sealed {
    fn of(&self, tool: &ToolName, audience: &Audience) -> Option<bool> {
        let kept = self.0.lock();
        let (sealed, said) = kept.get(&(tool.clone(), audience.clone()))?;
        (said.elapsed() < LASTS).then_some(*sealed)
    }

    pub(crate) fn note(&self, tool: &ToolName, audience: &Audience, sealed: bool) {
        let mut kept = self.0.lock();
        if kept.len() >= MAX_KEPT {
            kept.clear();
        }
        kept.insert((tool.clone(), audience.clone()), (sealed, Instant::now()));
    }

    /// There is another session.
    pub(crate) fn forget(&self) {
        self.0.lock().clear();
    }

    /// Whether the tool takes them. Where the sidecar does not answer, a draw says what is wrong.
    pub(crate) async fn takes(
        &self,
        sidecar: &AsyncClient,
        tool: &ToolName,
        audience: &Audience,
        deadline: Instant,
    ) -> bool {
        if let Some(sealed) = self.of(tool, audience) {
            return sealed;
        }
        let asked = timeout_at(deadline, sidecar.token_status_for(tool, audience)).await;
        let Ok(Ok(status)) = asked else { return false };
        // Without a session nothing is known yet.
        if status.session_active {
            self.note(tool, audience, status.sealed);
        }
        status.sealed
    }
}

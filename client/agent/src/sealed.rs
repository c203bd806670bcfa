//! Tools whose bodies are sealed, for requests whose body cannot be: the sidecar is asked, before a token is drawn for nothing.

use core::time::Duration;
use std::collections::HashMap;

use obol_ipc::message::DequeueTokenResult;
use obol_ipc::names::{Audience, ToolName};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::agent::{Draw, Inner};
use crate::error::{Code, Error};

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

    fn note(&self, tool: &ToolName, audience: &Audience, sealed: bool) {
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
}

impl Inner {
    /// Refuses a draw for a body that cannot be sealed where its tool takes sealed ones. Where the sidecar does not answer, the draw
    /// says what is wrong.
    pub(crate) async fn refuse_sealed(&self, draw: &Draw, deadline: Instant) -> Result<(), Error> {
        let (Some(why), Some(audience)) = (draw.cannot_seal, &draw.audience) else { return Ok(()) };
        match self.is_sealed(&draw.tool, audience, deadline).await {
            true => Err(Error::new(Code::InvalidArgument, why)),
            false => Ok(()),
        }
    }

    async fn is_sealed(&self, tool: &ToolName, audience: &Audience, deadline: Instant) -> bool {
        if let Some(sealed) = self.sealed.of(tool, audience) {
            return sealed;
        }
        let asked = timeout_at(deadline, self.sidecar.token_status_for(tool, audience)).await;
        let Ok(Ok(status)) = asked else { return false };
        // Without a session nothing is known yet.
        if status.session_active {
            self.sealed.note(tool, audience, status.sealed);
        }
        status.sealed
    }

    /// What was drawn, where its body can be what it asks for: a sidecar of another version may not have said it before.
    pub(crate) fn fitting(
        &self,
        draw: &Draw,
        drawn: DequeueTokenResult,
    ) -> Result<DequeueTokenResult, Error> {
        let Some(why) = draw.cannot_seal.filter(|_| drawn.channel.is_some()) else { return Ok(drawn) };
        if let Some(audience) = &draw.audience {
            self.sealed.note(&draw.tool, audience, true);
        }
        Err(Error::new(Code::InvalidArgument, why))
    }
}

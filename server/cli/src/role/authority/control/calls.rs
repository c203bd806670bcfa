//! A human's word on calls, as this socket says it.

use obol_authority::directory::{AskedCall as Row, CallStanding, Human};
use obol_authority::id::ApprovalId;
use obol_authority::{AskedApproval as Seen, Now, Refused};
use obol_ipc::approvals::{ApprovalState, ApprovalsResult, AskedApproval, AskedCall, DecideApprovalParams};
use obol_ipc::names::Label;
use obol_secret::text::plain;

use super::shown::{ANSWER_BYTES, short, time};
use super::{Control, Outcome, found};

impl Control {
    pub(super) fn approvals(&self, by: &Human, now: Now) -> Outcome<ApprovalsResult> {
        let waiting = found(self.authority.asked_approvals(by, now))?;
        let (approvals, more) = short(waiting.into_iter().map(|seen| shown(seen, now)), ANSWER_BYTES);
        Ok(ApprovalsResult { approvals, more })
    }

    pub(super) fn approval(&self, id: &Label, by: &Human, now: Now) -> Outcome<AskedApproval> {
        let id = found(ApprovalId::parse(id.as_str()).ok_or(Refused::NoSuchApproval))?;
        found(self.authority.asked_approval(&id, by, now)).map(|seen| shown(seen, now))
    }

    pub(super) fn decide_approval(
        &self,
        params: &DecideApprovalParams,
        by: &Human,
        now: Now,
    ) -> Outcome<AskedApproval> {
        let id = found(ApprovalId::parse(params.approval_id.as_str()).ok_or(Refused::NoSuchApproval))?;
        let decided = self.authority.decide_approval(&id, params.approve, by, now);
        found(decided).map(|seen| shown(seen, now))
    }
}

fn shown(seen: Seen, now: Now) -> AskedApproval {
    let Seen { approval, agent, allowed } = seen;
    let state = match approval.standing(now.secs()) {
        CallStanding::Waiting => ApprovalState::Waiting,
        CallStanding::Approved { .. } => ApprovalState::Approved,
        CallStanding::Denied => ApprovalState::Denied,
        CallStanding::Expired => ApprovalState::Expired,
    };
    AskedApproval {
        approval_id: approval.id.to_string(),
        agent_id: agent.id.to_string(),
        agent: agent.wanted.name,
        owner: agent.owner.to_string(),
        purpose: approval.purpose,
        calls: approval.calls.into_iter().map(call).collect(),
        lifetime_seconds: approval.lifetime_secs,
        created_at: time(approval.created_at),
        expires_at: time(approval.expires_at),
        state,
        allowed,
    }
}

/// What the agent says is freed of what steers a terminal; the rest is policy's own.
fn call(row: Row) -> AskedCall {
    let clean = |text: &str| plain(text).into_owned();
    let limits = row.scope.constraints.as_ref();
    AskedCall {
        tool: row.scope.tool,
        audience: clean(&row.scope.aud),
        offer: clean(&row.offer),
        actions: row.scope.action.iter().map(|action| clean(action)).collect(),
        resource: clean(&row.scope.resource),
        constraints: limits.and_then(|limits| serde_json::to_string(limits).ok()).map(|text| clean(&text)),
        arguments: row.arguments.as_deref().map(clean),
        count: row.uses.len() as u64,
    }
}

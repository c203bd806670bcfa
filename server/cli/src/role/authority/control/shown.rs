//! What the directory knows, as the operator is shown it. Lists are cut to what one answer holds.

use obol_authority::directory::{
    Agent, AgentStatus as Status, PolicyVersion, Registration, ResourceServer, SessionRow, Wanted,
};
use obol_authority::policy::Activated;
use obol_authority::{Copy, Invited, KillReport, Review, Sidecar};
use obol_ipc::as_control::{
    AgentSession, AgentState, AgentStatus, AgentWishes, CopyStatus, DisableResult, GrantPreview,
    HoldingServer, PolicyImpact, PolicyVersionStatus, ServerStatus, SidecarStatus, TicketResult,
    WaitingRegistration,
};
use obol_ipc::control::MAX_NAMED_SESSIONS;
use obol_ipc::refusal::Refusal;
use obol_ipc::secret::TicketText;
use obol_ipc::time::UtcTime;
use obol_session::Grant;
use serde::Serialize;

/// Space in one answer, as JSON, which is the longest form: a frame, less what is around the result.
pub(super) const ANSWER_BYTES: usize = obol_ipc::frame::MAX_BODY_BYTES - 4_096;
/// Space for a list beside others.
pub(super) const LIST_BYTES: usize = ANSWER_BYTES / 4;
/// Space for the names of one of many sessions.
const NAMES_BYTES: usize = 512;

fn bytes_of(value: &impl Serialize) -> usize {
    // What cannot be written is not sent either.
    serde_json::to_string(value).map_or(usize::MAX, |text| text.len() + 1)
}

/// As many as there is space for, beside what is there already; and how many are left.
pub(super) fn fitting<T: Serialize>(
    items: impl IntoIterator<Item = T>,
    bytes: usize,
    beside: &impl Serialize,
) -> (Vec<T>, u64) {
    let mut room = bytes.saturating_sub(bytes_of(beside));
    let (mut fit, mut left) = (Vec::new(), 0);
    for item in items {
        let size = bytes_of(&item);
        if left == 0 && size <= room {
            room -= size;
            fit.push(item);
        } else {
            left += 1;
        }
    }
    (fit, left)
}

/// As many as there is space for in a list of their own.
pub(super) fn short<T: Serialize>(items: impl IntoIterator<Item = T>, bytes: usize) -> (Vec<T>, u64) {
    fitting(items, bytes, &())
}

pub(super) fn time(secs: u64) -> UtcTime {
    UtcTime::from_unix_seconds(secs)
}

fn wishes(wanted: Wanted) -> AgentWishes {
    let Wanted { name, class, roles, tools, host, user, software } = wanted;
    AgentWishes { name, class, roles, tools, host, user, software }
}

pub(super) fn waiting(registration: Registration) -> WaitingRegistration {
    WaitingRegistration {
        registration_id: registration.id.to_string(),
        words: registration.identity.words(),
        subject: registration.identity.subject(),
        source: registration.source,
        created_at: time(registration.created_at),
        expires_at: time(registration.expires_at),
        wishes: wishes(registration.wanted),
    }
}

pub(super) fn reviewed(review: &Review) -> WaitingRegistration {
    waiting(review.registration.clone())
}

pub(super) fn preview(grant: Grant) -> GrantPreview {
    GrantPreview { tool: grant.tool, audience: grant.aud, actions: grant.action, resource: grant.resource }
}

pub(super) fn agent(agent: Agent, now: u64) -> AgentStatus {
    let state = match agent.status {
        Status::Revoked => AgentState::Revoked,
        Status::Suspended => AgentState::Suspended,
        Status::Active if agent.is_expired(now) => AgentState::Expired,
        Status::Active => AgentState::Active,
    };
    AgentStatus {
        agent_id: agent.id.to_string(),
        wishes: wishes(agent.wanted),
        roles: agent.roles,
        owner: agent.owner.to_string(),
        state,
        words: agent.identity.words(),
        approved_at: time(agent.approved_at),
        expires_at: time(agent.expires_at),
        last_session_at: agent.last_session_at.map(time),
        clone_suspected: agent.clone_suspected,
    }
}

pub(super) fn session(row: SessionRow) -> AgentSession {
    AgentSession {
        session_id: row.id,
        suite: u32::from(row.suite),
        established_at: time(row.established_at),
        expires_at: time(row.expires_at),
        policy_epoch: row.policy_epoch,
        audiences: short(row.audiences, NAMES_BYTES).0,
        tools: short(row.tools, NAMES_BYTES).0,
    }
}

pub(super) fn ended(report: KillReport, matched: bool) -> DisableResult {
    let ended = report.ended;
    let named = ended.sessions.iter().take(MAX_NAMED_SESSIONS);
    let holding = report.holders.into_iter().map(|holder| HoldingServer {
        audience: holder.audience,
        // A moment ago nobody had heard of it: who has confirmed is asked for afterwards.
        confirmed: false,
        sessions: holder.sessions,
        until: time(holder.until),
    });
    let (servers, more_servers) = short(holding, LIST_BYTES);
    DisableResult {
        matched,
        agents: ended.agents.iter().map(ToString::to_string).collect(),
        sessions_ended: ended.sessions.len() as u64,
        sessions: named.copied().collect(),
        event: ended.event,
        servers,
        more_servers,
    }
}

pub(super) fn copy(copy: Copy) -> CopyStatus {
    let Copy { id, audience, follows, confirmed, lease_ends, .. } = copy;
    CopyStatus { copy_id: id, audience, follows, confirmed, lease_ends_at: time(lease_ends) }
}

pub(super) fn sidecar(sidecar: Sidecar) -> SidecarStatus {
    let Sidecar { agent, follows, confirmed } = sidecar;
    SidecarStatus { agent_id: agent, follows, confirmed }
}

pub(super) fn server(server: ResourceServer) -> ServerStatus {
    let suites = server.suites.into_iter().map(u32::from).collect();
    ServerStatus { audience: server.audience, suites }
}

pub(super) fn version(row: PolicyVersion) -> PolicyVersionStatus {
    let PolicyVersion { version, epoch, digest, by, at } = row;
    PolicyVersionStatus { version, epoch, digest, by: by.to_string(), at: time(at) }
}

pub(super) fn impact(activated: &Activated) -> PolicyImpact {
    let impact = &activated.impact;
    PolicyImpact {
        agents: activated.agents as u64,
        held: impact.held as u64,
        lost: impact.lost as u64,
        narrowed: impact.narrowed as u64,
        widened: impact.widened as u64,
    }
}

pub(super) fn ticket(invited: &Invited) -> Result<TicketResult, Refusal> {
    let ticket = TicketText::new(invited.ticket.to_text().as_str()).map_err(Refusal::invalid_argument)?;
    Ok(TicketResult { ticket, expires_at: time(invited.expires_at) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_cut_to_the_space_there_is_in_order() {
        let items = || (0..100).map(|number| format!("{number:04}"));
        // Each takes seven bytes as JSON, with the comma.
        let (fit, left) = short(items(), 73);
        assert_eq!((fit.len(), left), (9, 91), "the list beside it takes some");
        assert_eq!(fit.last().map(String::as_str), Some("0008"));
        assert_eq!(short(items(), 10_000).1, 0);
        let (fit, left) = short(["long enough not to fit".to_owned(), "x".to_owned()], 20);
        assert_eq!((fit.len(), left), (0, 2), "nothing is left out of the middle");
    }
}

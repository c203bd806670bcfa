//! Security events, as the operator is shown them and may try them.

use obol_authority::directory::Human;
use obol_authority::{Now, Refused, Trial, trial};
use obol_ipc::as_control::{DisableResult, EventsResult, OutletState, TestEventParams, TransmitterState};
use obol_ipc::refusal::Refusal;

use super::shown::{self, ANSWER_BYTES, short, time};
use super::{Control, Outcome, found};

impl Control {
    pub(super) fn events(&self) -> Outcome<EventsResult> {
        let transmitters = self.events.status().into_iter().map(|one| TransmitterState {
            issuer: one.issuer,
            keys: u32::try_from(one.keys).unwrap_or(u32::MAX),
            keys_fetched_at: one.keys_fetched_at.map(time),
            error: one.error,
            taken: one.taken,
            again: one.again,
            unknown: one.unknown,
            refused: one.refused,
            heard_at: one.heard_at.map(time),
        });
        let outlets = self.events.outlets(found(self.authority.directory().last_event())?);
        let mail = self.mail.iter().flat_map(|mail| mail.status());
        let outlets = outlets.into_iter().chain(mail).map(|one| OutletState {
            name: one.name,
            kind: one.kind.to_owned(),
            waiting: one.waiting,
            sent: one.sent,
            dropped: one.dropped,
            error: one.error,
        });
        Ok(EventsResult {
            transmitters: short(transmitters, ANSWER_BYTES / 2).0,
            outlets: short(outlets, ANSWER_BYTES / 2).0,
        })
    }

    /// Of agents and humans that `by` does not reach as if they were not there: a trial ends what it is about.
    pub(super) fn test_event(
        &self,
        params: &TestEventParams,
        by: &Human,
        now: Now,
    ) -> Outcome<DisableResult> {
        let event = Trial::named(params.event.as_str())
            .ok_or_else(|| Refusal::invalid_argument("event: session-revoked or account-disabled"))?;
        let (human, agent) = match (&params.agent, &params.user) {
            (Some(name), None) => {
                let Some(agent) = found(self.authority.reached_agent(name.as_str(), by))? else {
                    return Ok(DisableResult::default());
                };
                (agent.owner, Some(agent.id))
            }
            (None, Some(user)) => {
                let issuer = params.issuer.as_ref().map_or("local", |issuer| issuer.as_str());
                let human = Human { issuer: issuer.to_owned(), subject: user.as_str().to_owned() };
                if !found(self.authority.reaches(by, &human))? {
                    return Ok(DisableResult::default());
                }
                (human, None)
            }
            _ => return Err(Refusal::invalid_argument("name an agent or a user, not both")),
        };
        match trial(&self.authority, event, &human, agent.as_ref(), now) {
            Ok(Some(report)) => Ok(shown::ended(report, true)),
            Ok(None) | Err(Refused::Unknown(_)) => Ok(DisableResult::default()),
            Err(refused) => Err(super::refusal(refused)),
        }
    }
}

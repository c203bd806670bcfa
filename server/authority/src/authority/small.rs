//! The purposes that need little: a resource server joins, a key is replaced, an agent leaves.

use obol_handshake::{HandshakeHash, IdentityPublic, Proven};
use serde_json::json;

use super::payload::{self, DeregisterRequest, JoinRequest, RotateRequest};
use super::{Authority, Now, Outcome, answered, handshake_of, seal_with};
use crate::directory::{Answer, Carried, Ended, NewReplica, Replica, RotateStep};
use crate::id::{AgentId, Bearer, ReplicaId};
use crate::refused::Refused;

impl Authority {
    /// Purpose 3.
    pub(super) fn join(&self, proven: Proven, now: Now) -> Answer<Outcome> {
        let code = payload::read::<JoinRequest>(&proven.payload)
            .and_then(|request| Bearer::parse(&request.code).ok_or(Refused::JoinCode));
        let code = match code {
            Ok(code) => code,
            Err(refused) => return self.refuse(proven, refused, now),
        };
        let identity = proven.identity;
        let new =
            NewReplica { id: ReplicaId::generate(&mut self.random()), identity, code_hash: code.hash() };
        let place = self.auditor.reserve()?;
        let handshake = handshake_of(&proven);
        let seal = seal_with(
            proven,
            |replica: &Replica| json!({ "rs_id": replica.id, "audience": replica.audience }),
        );
        let carried = self.directory.join(handshake, new, now.secs(), seal)?;
        match &carried {
            Carried::Now(Ok(replica), _) => place.joined(replica),
            Carried::Now(Err(refused), _) => self.auditor.refused(&identity, refused),
            Carried::Again(_) | Carried::Used | Carried::Stale => {}
        }
        Ok(answered(carried))
    }

    /// Purpose 7.
    pub(super) fn rotate_key(&self, proven: Proven, now: Now) -> Answer<Outcome> {
        let step = payload::read::<RotateRequest>(&proven.payload).and_then(|request| {
            match (request.next, request.first) {
                (Some(next), None) => Ok(RotateStep::Name(IdentityPublic(next))),
                (None, Some(first)) => Ok(RotateStep::Prove(HandshakeHash(first))),
                _ => Err(Refused::Malformed("next or first: exactly one of them".to_owned())),
            }
        });
        let step = match step {
            Ok(step) => step,
            Err(refused) => return self.refuse(proven, refused, now),
        };
        let (identity, proves) = (proven.identity, matches!(step, RotateStep::Prove(_)));
        let place = self.auditor.reserve()?;
        let handshake = handshake_of(&proven);
        let seal = seal_with(proven, |agent: &AgentId| json!({ "agent_id": agent }));
        let carried = self.directory.rotate_key(handshake, identity, step, now.secs(), seal)?;
        match &carried {
            Carried::Now(Ok(agent), _) => place.rotated(agent.as_str(), proves),
            Carried::Now(Err(refused), _) => self.auditor.refused(&identity, refused),
            Carried::Again(_) | Carried::Used | Carried::Stale => {}
        }
        Ok(answered(carried))
    }

    /// Purpose 8.
    pub(super) fn deregister(&self, proven: Proven, now: Now) -> Answer<Outcome> {
        if let Err(refused) = payload::read::<DeregisterRequest>(&proven.payload) {
            return self.refuse(proven, refused, now);
        }
        let identity = proven.identity;
        let place = self.auditor.reserve()?;
        let handshake = handshake_of(&proven);
        let seal = seal_with(proven, |ended: &Ended| json!({ "sessions_ended": ended.sessions.len() }));
        let carried = self.directory.deregister(handshake, identity, now.secs(), seal)?;
        match &carried {
            Carried::Now(Ok(ended), _) => {
                let name = ended.agents.first().map(ToString::to_string).unwrap_or_default();
                place.ended(&format!("agent {name}"), "deregistered by itself", &identity.subject(), ended);
            }
            Carried::Now(Err(refused), _) => self.auditor.refused(&identity, refused),
            Carried::Again(_) | Carried::Used | Carried::Stale => {}
        }
        Ok(answered(carried))
    }
}

//! From what a handshake, or a hand, leaves to the two halves of a session.

use obol_token::{Nonces, SessionId, SessionSecret, Suite};

use crate::agent_half::AgentHalf;
use crate::error::DocumentError;
use crate::grant::{AgentIdentity, Grant};
use crate::keys::{PopKey, ServerKeys, audience};
use crate::resource_half::{ResourceHalf, Window};

/// What is known of a session before its keys are derived.
#[derive(Debug)]
pub struct Establish {
    /// The session's number, never used before.
    pub session_id: SessionId,
    /// The suite that was negotiated.
    pub suite: Suite,
    /// Who may use the session's tokens.
    pub agent: AgentIdentity,
    /// The organisation that owns the session.
    pub org_id: String,
    /// How long the session lasts, in seconds.
    pub lifetime_secs: u64,
    /// The policy that the grants follow from.
    pub policy_epoch: u64,
    /// `SEK_PK`: the public half of the session's ephemeral key.
    pub sek_public: [u8; 32],
    /// What proofs of possession are made with, where a grant asks for them.
    pub pop_key: Option<PopKey>,
}

impl Establish {
    /// Derives the keys for each audience, and makes the agent's half and one half for each resource server, in the order
    /// of the audiences. Each resource server gets the grants that are for it, and no more. `now` in Unix seconds.
    ///
    /// # Errors
    ///
    /// [`DocumentError`] where a half would break a rule that reading it checks.
    pub fn from_secret(
        self,
        secret: &SessionSecret,
        audiences: &[&str],
        grants: Vec<Grant>,
        now: u64,
    ) -> Result<(AgentHalf, Vec<ResourceHalf>), DocumentError> {
        let end = now.saturating_add(self.lifetime_secs);
        let half = |audience: &&str| {
            Ok(ResourceHalf {
                session_id: self.session_id,
                suite: self.suite,
                keys: self.keys(secret, audience)?,
                org_id: self.org_id.clone(),
                revoked: false,
                window: Window { start: now, end },
                policy_epoch: self.policy_epoch,
                // Both halves are for Obol, whose minter derives them all.
                nonces: Nonces::Derived,
                pop_pub: self.pop_key.as_ref().map(PopKey::public),
                agent: Some(self.agent.clone()),
                grants: Some(grants.iter().filter(|grant| grant.aud == **audience).cloned().collect()),
            })
        };
        let halves = audiences.iter().map(half).collect::<Result<Vec<_>, DocumentError>>()?;
        let keys = audiences.iter().map(|audience| self.keys(secret, audience));
        let agent = AgentHalf {
            resource_servers: keys.collect::<Result<_, _>>()?,
            session_id: self.session_id,
            suite: self.suite,
            agent: self.agent,
            org_id: self.org_id,
            established_at: now,
            expires_at: end,
            policy_epoch: self.policy_epoch,
            lease_secs: None,
            pop_key: self.pop_key,
            grants,
        };
        agent.check()?;
        halves.iter().try_for_each(ResourceHalf::check)?;
        Ok((agent, halves))
    }

    fn keys(&self, secret: &SessionSecret, named: &str) -> Result<ServerKeys, DocumentError> {
        let derived = secret.for_audience(self.suite, self.session_id, &audience(named)?);
        Ok(ServerKeys {
            aud: named.to_owned(),
            session_key: derived.session_key,
            verifier_secret: derived.verifier_secret,
            mutual_auth: derived.mutual_auth,
            sek_public: self.sek_public,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(tool: &str, aud: &str) -> Grant {
        Grant {
            tool: tool.to_owned(),
            aud: aud.to_owned(),
            action: vec!["call".to_owned()],
            resource: "**".to_owned(),
            constraints: None,
            delegation_depth: 0,
            require_pop: tool == "pay",
            trust_level: 0,
            approval: crate::grant::ApprovalRule::None,
            purpose: None,
            ttl: 60,
        }
    }

    fn establish(
        audiences: &[&str],
        grants: Vec<Grant>,
    ) -> Result<(AgentHalf, Vec<ResourceHalf>), DocumentError> {
        let plan = Establish {
            session_id: SessionId::from_u64(7),
            suite: Suite::AesGcm,
            agent: AgentIdentity { agent_instance_id: "agent-1".into(), iss: "as".into(), sub: "key".into() },
            org_id: "example".into(),
            lifetime_secs: 3600,
            policy_epoch: 3,
            sek_public: [9; 32],
            pop_key: Some(PopKey::from_bytes([5; 32])),
        };
        plan.from_secret(&SessionSecret::from_bytes([1; 32]), audiences, grants, 1000)
    }

    #[test]
    fn both_halves_share_the_keys_of_each_audience_and_no_others() {
        let (a, b) = ("https://a", "https://b");
        let grants = vec![grant("search", a), grant("pay", b), grant("list", a)];
        let (agent, servers) = establish(&[a, b], grants).unwrap();
        assert_eq!((agent.established_at, agent.expires_at), (1000, 4600));
        for (mint, half) in agent.resource_servers.iter().zip(&servers) {
            assert_eq!(mint.aud, half.keys.aud);
            assert!(mint.session_key.matches(half.keys.session_key.expose()));
            assert!(mint.verifier_secret.matches(half.keys.verifier_secret.expose()));
            assert!(mint.mutual_auth.matches(half.keys.mutual_auth.expose()));
            assert_eq!(half.window, Window { start: 1000, end: 4600 });
            assert_eq!(half.pop_pub, Some(agent.pop_key.as_ref().unwrap().public()));
        }
        assert!(!servers[0].keys.session_key.matches(servers[1].keys.session_key.expose()));
        let tools = |half: &ResourceHalf| {
            half.grants.as_ref().unwrap().iter().map(|grant| grant.tool.clone()).collect::<Vec<_>>()
        };
        assert_eq!(
            (tools(&servers[0]), tools(&servers[1])),
            (vec!["search".into(), "list".into()], vec!["pay".into()])
        );
    }

    #[test]
    fn what_is_established_reads_back() {
        let (agent, servers) = establish(&["https://a"], vec![grant("pay", "https://a")]).unwrap();
        assert_eq!(AgentHalf::from_json(&agent.to_json()).unwrap().grants, agent.grants);
        let half = ResourceHalf::from_json(&servers[0].to_json()).unwrap();
        assert_eq!((half.grants, half.agent), (Some(agent.grants), Some(agent.agent)));
        assert_eq!((half.pop_pub, half.policy_epoch), (servers[0].pop_pub, 3));
    }

    #[test]
    fn what_could_not_be_read_is_not_established() {
        for (audiences, grants) in [
            (vec!["https://a"], vec![]),
            (vec![], vec![grant("pay", "https://a")]),
            (vec!["https://a"], vec![grant("pay", "https://b")]),
            (vec!["https://a", "https://a"], vec![grant("pay", "https://a")]),
        ] {
            assert!(establish(&audiences, grants).is_err(), "{audiences:?}");
        }
    }
}

//! Biscuits with `biscuit-auth`: one block of facts, and an authorizer whose rules were parsed once.

use core::time::Duration;

use biscuit_auth::builder::{Rule, fact, int, string};
use biscuit_auth::{Algorithm, AuthorizerBuilder, AuthorizerLimits, Biscuit, KeyPair, PrivateKey};
use obol_token::Jti;

use super::paseto::ED25519_SEED;
use super::{Claims, NOW, Peer, Verified};

/// The library gives up after a millisecond, which a machine under load may exceed.
const MAX_TIME: Duration = Duration::from_secs(10);

pub struct BiscuitPeer {
    root: KeyPair,
    authorizer: AuthorizerBuilder,
    name_and_end: Rule,
}

impl BiscuitPeer {
    pub fn new() -> Self {
        let key = PrivateKey::from_bytes(&ED25519_SEED, Algorithm::Ed25519).expect("a private key");
        let policy = r#"allow if issuer("as.example"), org("example-org"), audience($audience), tool("search"),
            action("read"), resource("docs/**"), now($now), issued_at($from), expires_at($until),
            here($audience), $from <= $now, $now <= $until"#;
        let authorizer = AuthorizerBuilder::new()
            .code(policy)
            .and_then(|builder| builder.fact(fact("now", &[int(NOW.cast_signed())])))
            .and_then(|builder| builder.fact(fact("here", &[string(obol_world::AUDIENCE)])))
            .expect("the policy is Datalog")
            .set_limits(AuthorizerLimits { max_time: MAX_TIME, ..AuthorizerLimits::default() });
        let name_and_end =
            "data($name, $until) <- jti($name), expires_at($until)".try_into().expect("Datalog");
        Self { root: KeyPair::from(&key), authorizer, name_and_end }
    }
}

impl Peer for BiscuitPeer {
    fn name(&self) -> &str {
        "biscuit-auth"
    }

    fn mint(&self, number: u64) -> Vec<u8> {
        let claims = Claims::new(number);
        let mut builder = Biscuit::builder();
        for (name, value) in [
            ("issuer", &claims.iss),
            ("subject", &claims.sub),
            ("agent", &claims.agent_instance_id),
            ("org", &claims.org_id),
            ("tool", &claims.tool),
            ("resource", &claims.resource),
            ("audience", &claims.aud),
            ("jti", &claims.jti),
        ] {
            builder = builder.fact(fact(name, &[string(value)])).expect("a fact");
        }
        for action in &claims.action {
            builder = builder.fact(fact("action", &[string(action)])).expect("a fact");
        }
        for (name, value) in [("issued_at", claims.iat), ("expires_at", claims.exp)] {
            builder = builder.fact(fact(name, &[int(value.cast_signed())])).expect("a fact");
        }
        builder.build(&self.root).and_then(|token| token.to_vec()).expect("the facts are short")
    }

    fn verify(&self, token: &[u8]) -> Option<Verified> {
        let token = Biscuit::from(token, self.root.public()).ok()?;
        let mut authorizer = self.authorizer.clone().build(&token).ok()?;
        authorizer.authorize().ok()?;
        let answers: Vec<(String, i64)> = authorizer.query(self.name_and_end.clone()).ok()?;
        let [(name, until)] = answers.as_slice() else { return None };
        Some(Verified { jti: Jti::parse(name.as_bytes())?, expires_at: u64::try_from(*until).ok()? })
    }
}

//! A resource server to test against, and a forge: an independent minter that can get every single thing wrong.

use std::sync::Arc;

use aes_gcm::aead::{Aead, KeyInit, Payload};
use curve25519_dalek::{RistrettoPoint, Scalar};
use obol_token::{
    Audience, Jti, MutualAuth, Scope, SessionId, SessionKey, SessionMaterial, Suite, VerifierSecret,
};
use obol_verify::{
    Arguments, Clock, Denial, ManualClock, MemorySessionTable, MemorySpentSet, Request, Session, Spent,
    SpentSet, Template, Unverified, Verified, Verifier, VerifierBuilder, Window,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256, Sha512};

pub(crate) const AUDIENCE: &str = "https://rs.example/mcp";
pub(crate) const ORG: &str = "example-org";
pub(crate) const TOOL: &str = "search";
/// When the fixture's clock starts, and when its tokens are issued unless said otherwise.
pub(crate) const NOW: u64 = 1_780_000_000;
pub(crate) const SESSION: SessionId = SessionId(0x00C0_FFEE_0000_0001);

/// The keys of one session, as plain bytes.
#[derive(Clone, Copy)]
pub(crate) struct Keys {
    pub(crate) session_key: [u8; 32],
    pub(crate) verifier_secret: [u8; 32],
    pub(crate) mutual_auth: [u8; 32],
    pub(crate) sek_public: [u8; 32],
}

pub(crate) const KEYS: Keys = Keys {
    session_key: [0x11; 32],
    verifier_secret: [0x22; 32],
    mutual_auth: [0x33; 32],
    sek_public: [0x44; 32],
};

impl Keys {
    pub(crate) fn material(&self) -> SessionMaterial {
        self.material_of(Suite::Tbac)
    }

    pub(crate) fn material_of(&self, suite: Suite) -> SessionMaterial {
        SessionMaterial::new(
            SESSION,
            suite,
            SessionKey::from_bytes(self.session_key),
            VerifierSecret::from_bytes(self.verifier_secret),
            MutualAuth::from_bytes(self.mutual_auth),
            self.sek_public,
        )
    }
}

pub(crate) fn session() -> Session {
    session_of(Suite::Tbac)
}

pub(crate) fn session_of(suite: Suite) -> Session {
    Session::new(KEYS.material_of(suite), Audience::new(AUDIENCE), ORG)
        .with_window(Window { start: NOW - 100, end: NOW + 100_000 })
}

/// A scope that the fixture's server accepts for [`TOOL`].
pub(crate) fn scope() -> Value {
    json!({
        "iss": "as.example", "sub": "agent-key:1", "agent_instance_id": "agent-1", "tool": TOOL, "action": "read",
        "resource": "docs/**", "delegation_depth": 0, "require_pop": false, "aud": AUDIENCE, "org_id": ORG,
        "trust_level": 1, "human_confirmed_at": 0
    })
}

/// The fixture's scope with other or more fields.
pub(crate) fn scope_with(fields: Value) -> Value {
    let mut scope = scope();
    for (name, value) in fields.as_object().unwrap() {
        scope[name] = value.clone();
    }
    scope
}

pub(crate) fn parsed(scope: &Value) -> Scope {
    serde_json::from_value(scope.clone()).unwrap()
}

/// What a token is made of. Written by the offsets of the specification, not with the crate's own minter; every field
/// can be wrong.
#[derive(Clone)]
pub(crate) struct Forge {
    pub(crate) keys: Keys,
    pub(crate) session_id: u64,
    pub(crate) jti: [u8; 16],
    pub(crate) issued_at: u64,
    pub(crate) expires_at: u64,
    pub(crate) policy_epoch: u64,
    /// The epoch whose privilege key signs the scope.
    pub(crate) signed_epoch: u64,
    /// The audience that the header names.
    pub(crate) audience: String,
    pub(crate) scope_tlv: Vec<u8>,
    /// What the body says.
    pub(crate) mutual_auth: [u8; 32],
    pub(crate) verifier_secret: [u8; 32],
    pub(crate) response_key: [u8; 32],
    /// The whole body, instead of the five fields.
    pub(crate) body: Option<Vec<u8>>,
    /// Flips a bit of the AEAD tag before signing.
    pub(crate) bad_tag: bool,
    /// Flips a bit of the signature.
    pub(crate) bad_signature: bool,
    /// The Schnorr nonce.
    pub(crate) nonce: Scalar,
}

impl Forge {
    /// A token in good order. `number` tells it from others.
    pub(crate) fn new(number: u64, scope: &Value) -> Self {
        let mut jti = [0; 16];
        jti[..8].copy_from_slice(&number.to_be_bytes());
        Self {
            keys: KEYS,
            session_id: SESSION.0,
            jti,
            issued_at: NOW,
            expires_at: NOW + 60,
            policy_epoch: 1,
            signed_epoch: 1,
            audience: AUDIENCE.to_owned(),
            scope_tlv: parsed(scope).to_tlv().unwrap(),
            mutual_auth: KEYS.mutual_auth,
            verifier_secret: KEYS.verifier_secret,
            response_key: [0x55; 32],
            body: None,
            bad_tag: false,
            bad_signature: false,
            nonce: Scalar::from_bytes_mod_order_wide(&Sha512::digest(jti).into()),
        }
    }

    /// The fixture's standard token.
    pub(crate) fn standard(number: u64) -> Self {
        Self::new(number, &scope())
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    pub(crate) fn jti(&self) -> Jti {
        Jti::from_random(self.jti)
    }

    pub(crate) fn text(&self) -> String {
        obol_token::text::to_base64url(&self.token())
    }

    pub(crate) fn token(&self) -> Vec<u8> {
        let material = self.keys.material();
        let keys = material.token_keys(&self.jti());
        let mut token = vec![0x03, 0x01, 0x03, 0x00];
        token.extend_from_slice(&self.session_id.to_be_bytes());
        token.extend_from_slice(&self.jti[..12]);
        token.extend_from_slice(&self.issued_at.to_be_bytes());
        token.extend_from_slice(&self.expires_at.to_be_bytes());
        token.extend_from_slice(&self.policy_epoch.to_be_bytes());
        token.extend_from_slice(&Sha256::digest(&self.audience));
        token.extend_from_slice(self.jti().as_bytes());
        token.extend_from_slice(&[0, 0]);

        let sealed = aes_gcm::Aes256Gcm::new(keys.encryption().into())
            .encrypt((&self.iv()).into(), Payload { msg: &self.body(&material), aad: &token })
            .unwrap();
        let (ciphertext, tag) = sealed.split_at(sealed.len() - 16);
        let mut tag = tag.to_vec();
        tag[0] ^= u8::from(self.bad_tag);

        let signing = Scalar::from_canonical_bytes(*keys.signing_scalar_bytes()).unwrap();
        let nonce_point = RistrettoPoint::mul_base(&self.nonce).compress().to_bytes();
        let challenge = Scalar::from_bytes_mod_order_wide(
            &Sha512::new()
                .chain_update(nonce_point)
                .chain_update(RistrettoPoint::mul_base(&signing).compress().as_bytes())
                .chain_update(self.keys.sek_public)
                .chain_update(self.keys.verifier_secret)
                .chain_update(&tag)
                .chain_update(ciphertext)
                .chain_update(&token)
                .finalize()
                .into(),
        );
        let mut signature = (self.nonce + challenge * signing).to_bytes();
        signature[0] ^= u8::from(self.bad_signature);
        [&token[..], &nonce_point, &tag, &signature, ciphertext].concat()
    }

    fn iv(&self) -> [u8; 12] {
        self.jti[..12].try_into().unwrap()
    }

    fn body(&self, material: &SessionMaterial) -> Vec<u8> {
        if let Some(body) = &self.body {
            return body.clone();
        }
        let privilege_signature = material.privilege_signature(self.signed_epoch, &self.scope_tlv);
        tlv(&[
            (1, &self.scope_tlv),
            (2, &privilege_signature),
            (3, &self.response_key),
            (4, &self.mutual_auth),
            (5, &self.verifier_secret),
        ])
    }
}

pub(crate) fn tlv(fields: &[(u8, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (tag, value) in fields {
        out.push(*tag);
        match u16::try_from(value.len()).unwrap() {
            short @ 0..0x80 => out.push(u8::try_from(short).unwrap()),
            long => out.extend_from_slice(&(long | 0x8000).to_be_bytes()),
        }
        out.extend_from_slice(value);
    }
    out
}

/// A resource server with one session, a clock that stands still, and marks in memory.
pub(crate) struct Server {
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) sessions: Arc<MemorySessionTable>,
    pub(crate) spent: Arc<dyn SpentSet>,
    pub(crate) verifier: Verifier,
}

impl Server {
    pub(crate) fn new() -> Self {
        Self::configured(|builder| builder)
    }

    pub(crate) fn configured(configure: impl FnOnce(VerifierBuilder) -> VerifierBuilder) -> Self {
        Self::with_session(session(), configure)
    }

    pub(crate) fn with_session(
        session: Session,
        configure: impl FnOnce(VerifierBuilder) -> VerifierBuilder,
    ) -> Self {
        let clock = Arc::new(ManualClock::new(NOW));
        let spent = MemorySpentSet::unfenced(Arc::clone(&clock) as Arc<dyn Clock>, 60);
        Self::with_spent_set(session, clock, Arc::new(spent), configure)
    }

    pub(crate) fn with_spent_set(
        session: Session,
        clock: Arc<ManualClock>,
        spent: Arc<dyn SpentSet>,
        configure: impl FnOnce(VerifierBuilder) -> VerifierBuilder,
    ) -> Self {
        let sessions = Arc::new(MemorySessionTable::new());
        sessions.add(session).unwrap();
        let builder =
            Verifier::builder(Audience::new(AUDIENCE), Arc::clone(&sessions) as Arc<_>, Arc::clone(&spent))
                .templates(Arc::new(Template::Any))
                .clock(Arc::clone(&clock) as Arc<dyn Clock>);
        let verifier = configure(builder).build().unwrap();
        Self { clock, sessions, spent, verifier }
    }

    pub(crate) fn verify(&self, token: &Forge, request: &Request<'_>) -> Result<Verified, Denial> {
        Unverified::from_bytes(token.token())?.verify(&self.verifier, request)
    }

    pub(crate) fn present(&self, token: &Forge, request: &Request<'_>) -> Result<Spent, Denial> {
        self.verify(token, request)?.spend().wait()
    }

    /// Presents a token for [`TOOL`], reading what is below `docs`, without arguments.
    pub(crate) fn accept(&self, token: &Forge) -> Result<Spent, Denial> {
        self.present(token, &reading())
    }
}

/// The request that the fixture's standard token allows.
pub(crate) fn reading() -> Request<'static> {
    Request {
        action: Some("read"),
        resource: Some("docs/a"),
        arguments: Arguments::Plain(None),
        ..Request::new(TOOL)
    }
}

/// Code and check of a refusal, as text.
pub(crate) fn names<T>(result: Result<T, Denial>) -> (&'static str, &'static str) {
    match result {
        Ok(_) => ("ok", "ok"),
        Err(denial) => (denial.code.as_str(), denial.failed_check.as_str()),
    }
}

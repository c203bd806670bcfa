//! What the benchmarks have in common: a session whose keys are fixed, how to mint in it, and the table of results.

pub mod load;
pub mod rows;

use obol_token::{
    Jti, Minter, MutualAuth, ResponseKey, Scope, SessionId, SessionKey, SessionMaterial, Suite, TokenSeed,
    Validity, VerifierSecret,
};

/// The audience of every token here.
pub const AUDIENCE: &str = "https://api.example/mcp";
/// When every token here was issued, in Unix seconds.
pub const ISSUED_AT: u64 = 1_800_000_000;

/// The session that mints and verifies, suite 1.
pub fn session() -> SessionMaterial {
    session_of(Suite::Tbac)
}

/// The same session, had it negotiated another suite.
pub fn session_of(suite: Suite) -> SessionMaterial {
    SessionMaterial::new(
        SessionId(7),
        suite,
        SessionKey::from_bytes([1; 32]),
        VerifierSecret::from_bytes([2; 32]),
        MutualAuth::from_bytes([3; 32]),
        [4; 32],
    )
}

/// A scope of ordinary size: the tokens come to about 450 bytes.
pub fn scope() -> Scope {
    Scope {
        iss: "https://auth.example".to_owned(),
        sub: "IK:2f9c0d".to_owned(),
        agent_instance_id: "agent-1".to_owned(),
        tool: "search".to_owned(),
        action: vec!["read".to_owned()],
        resource: "docs/**".to_owned(),
        constraints: None,
        delegation_depth: 0,
        parent_token_hash: None,
        require_pop: false,
        aud: AUDIENCE.to_owned(),
        org_id: "example".to_owned(),
        trust_level: 1,
        human_confirmed_at: 0,
        approval_digest: None,
        purpose: None,
        txn_id: None,
        user_raw_intent: None,
        intent_hash: None,
    }
}

/// Mints `count` tokens, the first named after `first`.
pub fn mint(session: &SessionMaterial, first: u64, count: usize) -> Vec<Vec<u8>> {
    let seeds: Vec<TokenSeed> = (first..).take(count).map(seed).collect();
    let validity = Validity { issued_at: ISSUED_AT, expires_at: ISSUED_AT + 60 };
    let minter = Minter::new(session, &scope(), 1);
    minter.and_then(|minter| minter.mint(validity, &seeds)).unwrap_or_default()
}

/// Seeds as a refiller makes them, from 48 random bytes each.
pub fn seeds(random: &[u8]) -> Vec<TokenSeed> {
    let (chunks, _) = random.as_chunks::<48>();
    let seeds = (0_u64..).zip(chunks).map(|(counter, chunk)| {
        let (jti, response_key) = chunk.split_first_chunk::<16>().unwrap_or((&[0; 16], &[]));
        let mut iv = [0; 12];
        iv.split_at_mut(4).1.copy_from_slice(&counter.to_be_bytes());
        let response_key = ResponseKey::from_bytes(response_key.try_into().unwrap_or([0; 32]));
        TokenSeed { jti: Jti::from_random(*jti), iv, response_key, nonce: None }
    });
    seeds.collect()
}

fn seed(number: u64) -> TokenSeed {
    let mut name = [0; 16];
    name.split_at_mut(8).1.copy_from_slice(&number.to_be_bytes());
    let mut iv = [0; 12];
    iv.split_at_mut(4).1.copy_from_slice(&number.to_be_bytes());
    TokenSeed { jti: Jti::from_random(name), iv, response_key: ResponseKey::from_bytes([5; 32]), nonce: None }
}

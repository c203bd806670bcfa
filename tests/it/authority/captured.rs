//! A sidecar that somebody captured with all its keys: what it mints beyond its session's grants no resource server accepts
//! that follows the service.

use std::sync::Arc;

use obol_authenticator::Session;
use obol_token::{Audience, Minter, ResponseKey, Scope, TokenSeed, Validity};
use obol_verify::{
    Arguments, MemorySessionTable, MemorySpentSet, Request, SystemClock, Template, Unverified, Verifier,
};
use obol_world::authority::{AsProcess, write_policy};
use obol_world::home;
use obol_world::now;
use obol_world::rs::RsProcess;

use super::Agent;
use super::stream::API;

/// The role `dev` may read ten rows of the documents at a time, and no tool but that.
const CATALOGUE: &str = r#"
org = "example"

[[tool]]
name = "search"
audience = "https://api.example"
risk = "low"
  [[tool.offer]]
  name = "read"
  action = ["read"]
  resource = "docs/**"
  ttl = 60
  constraints = { max_rows = 10 }

[[tool]]
name = "delete"
audience = "https://api.example"
risk = "low"
  [[tool.offer]]
  name = "all"
  action = ["read"]
  resource = "**"
  ttl = 60
"#;

/// What a captured sidecar has: the session's keys. It mints the grant with other fields.
pub(super) fn minted(session: &Session, change: impl FnOnce(&mut Scope)) -> String {
    let half = &session.half;
    let keys = half.resource_servers.iter().find(|keys| keys.aud == API).unwrap();
    let material = keys.material(half.session_id, half.suite);
    let mut scope = half.grants[0].scope(&half.agent, &half.org_id);
    change(&mut scope);
    let minter = Minter::new(&material, &scope, half.policy_epoch).unwrap();
    let mut random = [0; 48];
    getrandom(&mut random);
    let validity = Validity { issued_at: now(), expires_at: now() + 60 };
    let tokens = minter.mint(validity, &obol_world::mint::seeds(&random)).unwrap();
    obol_token::text::to_base64url(&tokens[0])
}

fn getrandom(bytes: &mut [u8]) {
    use obol_handshake::Random as _;
    obol_authority::id::SystemRandom.fill(bytes);
}

/// A verifier with the session's keys and nothing said of grants: what the ceiling is the difference to.
fn without_ceiling(session: &Session) -> Verifier {
    let half = &session.half;
    let keys = half.resource_servers.iter().find(|keys| keys.aud == API).unwrap();
    let audience = Audience::new(API).unwrap();
    let open = obol_verify::Session::new(
        keys.material(half.session_id, half.suite),
        audience.clone(),
        half.org_id.as_str(),
    );
    let sessions = MemorySessionTable::new();
    sessions.add(open).unwrap();
    let spent = MemorySpentSet::unfenced(Arc::new(SystemClock::new()), 120);
    let builder = Verifier::builder(audience, Arc::new(sessions), Arc::new(spent));
    builder.templates(Arc::new(Template::Any)).build().unwrap()
}

fn accepted(verifier: &Verifier, token: &str, tool: &str) -> bool {
    let request = Request {
        action: Some("read"),
        resource: Some("docs/a"),
        arguments: Arguments::Plain(None),
        ..Request::new(tool)
    };
    let token = Unverified::from_text(token.as_bytes()).unwrap();
    token.verify(verifier, &request).and_then(|verified| verified.spend().wait()).is_ok()
}

#[test]
fn a_captured_sidecar_mints_nothing_wider_than_it_was_granted() {
    let home = home::home();
    let policies = obol_world::authority::POLICIES;
    write_policy(&home.path().join("policy"), CATALOGUE, policies);
    let service = AsProcess::start_with(home.path(), &["--policy", "policy"]);
    let rs = RsProcess::follow(home.path(), &service, API, &["--first-start"]);
    let (mut agent, _) = Agent::approved(&service, home.path(), "builder");
    let session = agent.open().unwrap();
    assert_eq!(session.half.grants.len(), 1);
    let within: [fn(&mut Scope); 2] =
        [|_| {}, |scope| scope.constraints.as_mut().unwrap().max_rows = Some(1)];
    for change in within {
        assert_eq!(rs.present(&minted(&session, change), "search"), "OK", "{}", rs.log());
    }
    type Change = fn(&mut Scope);
    let wider: [(&str, &str, Change); 7] = [
        ("another tool", "delete", |scope| scope.tool = "delete".to_owned()),
        ("another resource", "search", |scope| scope.resource = "**".to_owned()),
        ("another action", "search", |scope| scope.action = vec!["read".to_owned(), "write".to_owned()]),
        ("more rows", "search", |scope| scope.constraints.as_mut().unwrap().max_rows = Some(11)),
        ("no limit of rows", "search", |scope| scope.constraints = None),
        ("a delegation", "search", |scope| scope.delegation_depth = 1),
        ("another agent", "search", |scope| scope.agent_instance_id = "agent-2".to_owned()),
    ];
    let open = without_ceiling(&session);
    for (what, tool, change) in wider {
        let token = minted(&session, change);
        assert_eq!(rs.present(&token, tool), "INSUFFICIENT_PRIVILEGE", "{what}: {}", rs.log());
        assert!(accepted(&open, &token, tool), "{what}: nothing but the ceiling stops it");
    }
    // A human who never said yes.
    let invented = minted(&session, |scope| {
        scope.trust_level = 3;
        scope.human_confirmed_at = now();
        scope.txn_id = Some([7; 16]);
        scope.approval_digest = Some(scope.compute_approval_digest().unwrap());
    });
    assert_eq!(rs.present(&invented, "search"), "INSUFFICIENT_PRIVILEGE", "{}", rs.log());
    assert!(accepted(&open, &invented, "search"), "nothing but the ceiling stops it");
    // Nor is a session that the service never opened known anywhere.
    let seed = TokenSeed {
        jti: obol_token::Jti::from_random([1; 16]),
        iv: [1; 12],
        response_key: ResponseKey::from_bytes([1; 32]),
        nonce: None,
    };
    let keys = &session.half.resource_servers[0];
    let number = obol_session::SessionId::from_u64(session.half.session_id.as_u64() + 1);
    let material = keys.material(number, session.half.suite);
    let scope = session.half.grants[0].scope(&session.half.agent, &session.half.org_id);
    let minter = Minter::new(&material, &scope, session.half.policy_epoch).unwrap();
    let validity = Validity { issued_at: now(), expires_at: now() + 60 };
    let token = obol_token::text::to_base64url(&minter.mint(validity, &[seed]).unwrap()[0]);
    assert_eq!(rs.present_once(&token, "search"), "SESSION_NOT_FOUND");
}

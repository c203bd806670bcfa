//! Any bytes as a token's body, sealed by an issuer that has the keys and has gone wrong: what opens is five fields in
//! canonical form, and what is accepted has a canonical scope.
#![no_main]

use libfuzzer_sys::fuzz_target;
use obol_fuzz::canonical::{body_scope, without_vendor_tags};
use obol_fuzz::seeds;
use obol_fuzz::world::{TOOL, World};
use obol_token::{BodyOpenError, Envelope};
use obol_verify::Request;
use obol_world::forge::Forge;

fuzz_target!(init: seeds::write_if_asked("body"), |data: &[u8]| {
    let world = World::get();
    // A suite that signs and one that does not, in turns.
    let signed = data.len() % 2 == 0;
    let keys = world.keys.iter().find(|keys| keys.suite.is_signed() == signed).expect("there is one of either kind");
    let token = Forge::sealing(*keys, data).token();
    let Ok(envelope) = Envelope::parse(&token) else {
        panic!("the header is sound");
    };
    let expected = body_scope(data);
    match (keys.material().open(&envelope), expected) {
        (Ok(body), Some(scope)) => {
            assert_eq!(body.scope_tlv(), scope);
            assert_eq!(body.scope().is_ok() && without_vendor_tags(scope).is_none(), false, "a scope is canonical");
        }
        (Err(BodyOpenError::Body), None) => {}
        (Err(error), _) => panic!("{error}, and the oracle reads {expected:?}"),
        (Ok(_), None) => panic!("a body is not canonical"),
    }
    let server = world.server();
    // The session's secrets and a signed scope are in no input.
    assert!(server.accept(&token, &Request::new(TOOL)).is_err());
    assert_eq!(server.spent(), 0, "a refusal burns nothing");
});

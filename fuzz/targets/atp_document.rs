//! Any bytes as a discovery document: no URL comes out that is not HTTPS at the host that was asked, or below it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use obol_atp::discovery::Discovered;
use obol_atp::{AtpEndpoint, Host};
use obol_fuzz::seeds;

/// By another grammar than the one that is judged.
fn is_allowed(endpoint: &AtpEndpoint) -> bool {
    let Some(rest) = endpoint.as_str().strip_prefix("https://") else { return false };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let at_host = authority == "api.example.com"
        || authority.strip_suffix(".api.example.com").is_some_and(|below| {
            below.bytes().all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.'
            })
        });
    at_host
        && path.len() > 1
        && !path.contains(['?', '#', '\\', '%', ' '])
        && !path.split('/').any(|part| part == "..")
}

fuzz_target!(init: seeds::write_if_asked("atp_document"), |data: &[u8]| {
    let host: Host = "api.example.com".parse().expect("it is a host");
    let Ok(found) = Discovered::read(data, &host, &[]) else { return };
    assert!(found.signed.is_some() || found.master.is_some());
    if let Some(signed) = &found.signed {
        for endpoint in [&signed.token, &signed.verify, &signed.revoke] {
            assert!(is_allowed(endpoint), "{endpoint}");
        }
    }
    if let Some(master) = &found.master {
        assert!(is_allowed(&master.issue));
        for id in ["tok_0", "../..", "a/b", "?", "%2e%2e"] {
            for route in [&master.rotate, &master.revoke].into_iter().flatten() {
                if let Some(endpoint) = route.of(id) {
                    assert!(is_allowed(&endpoint) && id == "tok_0", "{endpoint}");
                }
            }
        }
    }
});

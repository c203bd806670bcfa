//! Any bytes as a session document, as a file of sessions, and as a scope in JSON: never a panic, and never an error
//! that repeats a key.
#![no_main]

use libfuzzer_sys::fuzz_target;
use obol_fuzz::{secrets, seeds};
use obol_token::Scope;
use obol_verify::{ResourceHalf, parse_sessions};

fuzz_target!(init: seeds::write_if_asked("document"), |data: &[u8]| {
    match obol_queue::AgentHalf::from_json(data) {
        Ok(document) => {
            assert!(document.grants() > 0);
            let written = document.to_json();
            let again = obol_queue::AgentHalf::from_json(&written).expect("what was written can be read");
            assert_eq!(*again.to_json(), *written);
            secrets::assert_kept(data, &format!("{document:?}"));
        }
        Err(error) => secrets::assert_kept(data, &error.to_string()),
    }
    match parse_sessions(data) {
        Ok(sessions) => {
            let halves = ResourceHalf::list_from_json(data).expect("what are sessions are halves");
            for half in &halves {
                assert_eq!(*ResourceHalf::from_json(&half.to_json()).expect("what was written can be read").to_json(), *half.to_json());
            }
            secrets::assert_kept(data, &format!("{sessions:?}{halves:?}"));
        }
        Err(error) => secrets::assert_kept(data, &format!("{error} {error:?}")),
    }
    if let Ok(text) = str::from_utf8(data) {
        match obol_ipc::secret::SessionDocumentText::new(text) {
            Ok(document) => {
                // What stands on the wire is the document without what surrounded it.
                assert_eq!(document.expose(), text.trim_matches([' ', '\t', '\r', '\n']));
                secrets::assert_kept(data, &format!("{document:?}"));
            }
            Err(error) => secrets::assert_kept(data, &error.to_string()),
        }
    }
    if let Ok(scope) = serde_json::from_slice::<Scope>(data) {
        let json = serde_json::to_vec(&scope).expect("a scope is JSON");
        assert_eq!(serde_json::from_slice::<Scope>(&json).expect("what was written can be read"), scope);
        if let Ok(tlv) = scope.to_tlv() {
            assert_eq!(Scope::from_tlv(&tlv), Ok(scope), "TLV says the same as JSON");
        }
    }
});

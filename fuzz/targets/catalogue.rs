//! Any bytes as a catalogue: never a panic; and what is read could all be granted, in a session that is read back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use obol_fuzz::{policy, seeds};
use obol_policy::{Catalogue, PolicySource, PolicyVersion};

const PERMIT: &str = "@id(\"all\") permit (principal, action, resource is Obol::Tool);";

fuzz_target!(init: seeds::write_if_asked("catalogue"), |data: &[u8]| {
    let Ok(text) = str::from_utf8(data) else { return };
    let Ok(catalogue) = Catalogue::from_toml(text) else { return };
    let policies = [("all.cedar".to_owned(), PERMIT.to_owned())];
    let source = PolicySource { catalogue: text.to_owned(), policies: policies.into() };
    let version = PolicyVersion::load(source).expect("a catalogue that is valid is so in a version");
    let decision = version.decide(&policy::agent(), &policy::MOMENT).expect("the agent can be asked about");
    let grants = decision.grants();
    assert_eq!(grants.len(), catalogue.tools().len(), "with everything permitted, each tool is granted");
    for (grant, tool) in grants.iter().zip(catalogue.tools()) {
        assert_eq!(*grant, *tool.offers[0].grant, "the first offer is the grant");
        let json = serde_json::to_string(grant).expect("a grant is JSON");
        assert_eq!(serde_json::from_str::<obol_verify::Grant>(&json).expect("and is read back"), *grant);
    }
});

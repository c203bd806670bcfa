//! Any bytes as policies: never a panic and never the end of a stack; an answer is the same when it is asked again, and
//! the same from the cache.
#![no_main]

use libfuzzer_sys::fuzz_target;
use obol_fuzz::{policy, seeds};
use obol_policy::{DecisionCache, PolicySource, PolicyVersion};

fuzz_target!(init: seeds::write_if_asked("policy"), |data: &[u8]| {
    let Ok(text) = str::from_utf8(data) else { return };
    let policies = [("fuzz.cedar".to_owned(), text.to_owned())];
    let source = PolicySource { catalogue: policy::CATALOGUE.to_owned(), policies: policies.into() };
    match PolicyVersion::load(source) {
        Err(error) => assert!(!error.problems().is_empty()),
        Ok(version) => {
            let _said = version.findings();
            let (agent, cache) = (policy::agent(), DecisionCache::new());
            let decision = version.decide(&agent, &policy::MOMENT).expect("the agent can be asked about");
            for _ in 0..2 {
                let kept = cache.decide(&version, &agent, &policy::MOMENT).expect("the same agent");
                assert_eq!(kept.grants(), decision.grants());
            }
            for offer in decision.tools.iter().flat_map(|tool| &tool.offers) {
                assert!(!offer.attended.allowed || offer.attended.errors.is_empty(), "an error denies");
            }
        }
    }
});

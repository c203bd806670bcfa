//! What policy costs when a session is opened: every tool of a catalogue decided for one agent, nothing kept from before;
//! and the same answer taken from the cache, as agents of one class share it.
//!
//! `cargo bench -p obol-benches --bench policy`; with `-- --quick` a tenth of the samples.

#![allow(clippy::panic, reason = "a benchmark that cannot go on says so and stops")]

use core::fmt::Write as _;
use core::hint::black_box;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use obol_benches::rows::{self, Row, Target, Unit};
use obol_policy::{AgentFacts, DecisionCache, HumanFacts, Occasion, PolicySource, PolicyVersion};

const TOOLS: usize = 50;
const OFFERS: usize = 4;
const POLICIES: usize = 100;
const SAMPLES: usize = 300;
/// What deciding a session may take.
const TARGET_NANOS: f64 = 20e6;

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let samples = if quick { SAMPLES / 10 } else { SAMPLES };
    rows::begin();
    // Policies for roles that the agent lacks are passed over at once. At worst all are for its own.
    for (what, roles) in [("of 10 roles", 10), ("all of the agent's role", 1)] {
        for (answer, allowed) in [("the last offer granted", true), ("everything denied", false)] {
            let version = version(roles, allowed);
            let times = measure(samples, || {
                black_box(version.decide(&agent(), &MOMENT).map(|decision| decision.grants().len()).ok())
            });
            let name =
                format!("decide {TOOLS} tools × {OFFERS} offers, {POLICIES} policies {what}, {answer}");
            Row::new("policy", format!("{name}, p50"), Unit::Nanoseconds, times.0)
                .wants(Target::AtMost(TARGET_NANOS))
                .record();
            Row::new("policy", format!("{name}, p99"), Unit::Nanoseconds, times.1).record();
        }
    }
    let (version, cache) = (version(10, true), DecisionCache::new());
    let times = measure(samples * 10, || {
        black_box(cache.decide(&version, &agent(), &MOMENT).map(|decision| decision.tools.len()).ok())
    });
    Row::new("policy", "the same from the cache, p50", Unit::Nanoseconds, times.0).record();
    let source = version.source().clone();
    let times = measure(samples / 10, || {
        black_box(PolicyVersion::load(source.clone()).map(|version| version.digest()).ok())
    });
    Row::new("policy", "load and check such a version, p50", Unit::Nanoseconds, times.0).record();
}

const MOMENT: Occasion = Occasion { now: 1_780_315_200, suite: 4, owner_auth_age_secs: 60 };

/// Median and 99th percentile, in nanoseconds.
fn measure<T>(samples: usize, mut run: impl FnMut() -> Option<T>) -> (f64, f64) {
    let mut times: Vec<_> = (0..samples + samples / 10)
        .map(|_| {
            let begin = Instant::now();
            run().unwrap_or_else(|| panic!("a benchmark of what fails says nothing"));
            begin.elapsed().as_secs_f64() * 1e9
        })
        // The first ones fill the processor's caches.
        .skip(samples / 10)
        .collect();
    times.sort_by(f64::total_cmp);
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
    (at(50), at(99))
}

fn agent() -> AgentFacts {
    let roles: BTreeSet<_> = ["role-0".to_owned()].into();
    let owner = HumanFacts {
        id: "local:alice".into(),
        issuer: "local".into(),
        organisation: "example".into(),
        mfa: true,
        roles: roles.clone(),
    };
    AgentFacts {
        id: "agt_bench".into(),
        class: "assistant".into(),
        roles,
        owner,
        flow: "local".into(),
        registered_days: 3,
        clone_suspected: false,
        tags: BTreeSet::new(),
    }
}

fn version(roles: usize, allowed: bool) -> PolicyVersion {
    let mut catalogue = String::new();
    for tool in 0..TOOLS {
        let head = format!(
            "name = \"tool-{tool}\"\naudience = \"https://api.example\"\nsets = [\"set-{}\"]",
            tool % 10
        );
        let _memory = writeln!(catalogue, "[[tool]]\n{head}\nrisk = \"medium\"");
        for offer in 0..OFFERS {
            let limits = format!("constraints = {{ max_rows = {} }}", 1000 - offer);
            let fields = format!("name = \"o{offer}\"\naction = \"read\"\nresource = \"**\"\n{limits}");
            let _memory = writeln!(catalogue, "[[tool.offer]]\n{fields}");
        }
    }
    let mut policies = String::new();
    for policy in 0..POLICIES {
        let action = if policy / 10 % 2 == 0 { "use" } else { "useUnattended" };
        // Role and set apart, so that one role has policies for every set.
        let (role, set) = (policy / 20 % roles, policy % 10);
        // The last offer of each tool has the fewest rows.
        let rows = if allowed { 1000 - OFFERS + 1 } else { 1 };
        let when = format!(
            "context.offer has max_rows && context.offer.max_rows <= {rows} && resource.risk != \"high\""
        );
        let scope = format!(
            "principal in Obol::Role::\"role-{role}\", action == Obol::Action::\"{action}\", resource in Obol::ToolSet::\"set-{set}\""
        );
        let _memory = writeln!(policies, "@id(\"p{policy}\") permit ({scope}) when {{ {when} }};");
    }
    let policies = BTreeMap::from([("policies.cedar".to_owned(), policies)]);
    PolicyVersion::load(PolicySource { catalogue, policies }).unwrap_or_else(|error| panic!("{error}"))
}

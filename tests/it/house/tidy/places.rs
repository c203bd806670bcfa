//! What is done in one place. Who does it elsewhere stands in a list, place by place, with the reason.

use super::calls::{self, Call};
use super::source::Source;
use super::{json, planted, source};

/// Functions of a file that may do what others may not, each as often as it is named, and why.
pub(super) type Place = (&'static str, &'static [&'static str], &'static str);

/// What each file's code names.
type Named = Vec<(String, Vec<Call>)>;

fn named(sources: &[Source]) -> Named {
    sources.iter().map(|source| (source.path.clone(), calls::of(source))).collect()
}

fn found(named: &Named, is_meant: fn(&Call) -> bool) -> Vec<String> {
    let calls = named.iter().flat_map(|(path, calls)| calls.iter().map(move |call| (path, call)));
    let meant = calls.filter(|(_, call)| is_meant(call));
    meant.map(|(path, call)| format!("{path}: `{}` names `{}`", call.within, call.path)).collect()
}

/// Where these files do it, one line a place.
pub(super) fn done(sources: &[Source], is_meant: fn(&Call) -> bool) -> Vec<String> {
    found(&named(sources), is_meant)
}

/// The places that no list allows, and what the list allows though nobody does it.
pub(super) fn against(found: &[String], allowed: &[Place]) -> Vec<String> {
    let mut unused: Vec<String> = allowed
        .iter()
        .flat_map(|(file, functions, _)| {
            functions.iter().map(move |function| format!("{file}: `{function}` "))
        })
        .collect();
    let mut wrong: Vec<String> = Vec::new();
    for place in found {
        match unused.iter().position(|allowed| place.starts_with(allowed)) {
            Some(index) => drop(unused.remove(index)),
            None => wrong.push(place.clone()),
        }
    }
    wrong.extend(unused.into_iter().map(|place| format!("not needed any more: {place}")));
    wrong.extend(
        allowed
            .iter()
            .filter(|(_, _, reason)| !reason.contains(' '))
            .map(|(file, ..)| format!("{file}: no reason")),
    );
    wrong
}

/// What is done where.
struct Rule {
    what: &'static str,
    is_done: fn(&Call) -> bool,
    allowed: &'static [Place],
    /// Code that must be found, each at one place.
    faults: &'static [&'static str],
}

fn is_one_of(call: &Call, names: &[&str]) -> bool {
    names.iter().any(|names| call.ends_with(names))
}

const RULES: &[Rule] = &[
    Rule {
        what: "reads JSON",
        is_done: json::is_read,
        allowed: json::ALLOWED,
        faults: &["fn f(a: &[u8]) { let _read: R<T> = serde_json::from_slice(a); }"],
    },
    Rule {
        what: "reads the machine's clock",
        is_done: |call| is_one_of(call, &["SystemTime::now", "clock_gettime", "UNIX_EPOCH::elapsed"]),
        allowed: &[
            ("client/agent/src/fetch/mod.rs", &["Inner::is_young"], "an agent's program links no sessions"),
            ("client/atp/src/date.rs", &["now_ms"], "an agent's program links no sessions"),
            (
                "engine/audit/src/entry.rs",
                &["Entry::new"],
                "knows no sessions; a line's time is finer than seconds",
            ),
            ("engine/session/src/clock.rs", &["SystemClock::now_ms", "seconds"], "the clock itself"),
            (
                "server/probe/src/notify.rs",
                &["Notifier::reloading"],
                "the service manager wants this very clock's",
            ),
        ],
        faults: &[
            "use std::time::SystemTime;\nfn f() -> u64 { SystemTime::now().elapsed() }",
            "fn f() -> u64 { std::time::SystemTime::now().elapsed() }",
            "use rustix::time::clock_gettime as look;\nfn f() { look(A); }",
        ],
    },
    Rule {
        what: "defines a clock",
        is_done: |call| call.path == "impl::Clock",
        allowed: &[
            ("engine/conformance/src/lib.rs", &["TimeOfLine"], "shows what a line says"),
            ("engine/session/src/clock.rs", &["SystemClock", "Arc"], "the clock itself"),
        ],
        faults: &[
            "impl Clock for Mine { fn now(&self) -> u64 { 0 } }",
            "impl obol_session::clock::Clock for Mine {}",
        ],
    },
    Rule {
        what: "creates a folder",
        is_done: |call| {
            is_one_of(call, &["DirBuilder::new", "create_dir", "create_dir_all", "mkdir", "mkdirat"])
        },
        allowed: &[
            ("engine/secret/src/file/place.rs", &["create_folder"], "the one that makes private ones"),
            (
                "server/cli/src/install/step.rs",
                &["Stage::act", "Stage::put"],
                "folders of the system, by `obol install`",
            ),
            ("server/cli/src/man.rs", &["write"], "manual pages, for everybody"),
            ("server/cli/src/policy/init.rs", &["run"], "a policy, for everybody to read"),
            (
                "server/cli/src/role/demo/authority.rs",
                &["Authority::start"],
                "inside the demo's private folder",
            ),
            (
                "server/sidecar/src/listener.rs",
                &["make_folder", "make_folder"],
                "of a socket, that others may be let into",
            ),
        ],
        faults: &[
            "use std::fs::{self, DirBuilder};\nfn f() { DirBuilder::new().create(a); }",
            "use std::fs;\nfn f() { fs::create_dir_all(a); }",
        ],
    },
    Rule {
        what: "opens a file",
        is_done: |call| {
            let by_file =
                ["File::open", "File::create", "File::create_new", "File::options", "OpenOptions::new"];
            let by_name =
                ["fs::read", "fs::read_to_string", "fs::write", "fs::copy", "fs::open", "openat", "openat2"];
            is_one_of(call, &by_file) || is_one_of(call, &by_name)
        },
        allowed: &[
            (
                "engine/secret/src/file/place.rs",
                &["Place::named", "Place::open", "Place::create_whole", "create_folder", "sync_folder"],
                "the one that opens private ones",
            ),
            (
                "server/cli/src/install/step.rs",
                &["Stage::act", "Stage::put"],
                "programs and units, for everybody",
            ),
            ("server/cli/src/man.rs", &["write"], "manual pages, for everybody"),
            (
                "server/cli/src/operate/atp/sign.rs",
                &["read_object"],
                "the caller's own text, or a pipe of theirs",
            ),
            (
                "server/cli/src/operate/dequeue.rs",
                &["hash_of"],
                "the caller's own arguments, or a pipe of theirs",
            ),
            ("server/cli/src/operate/fetch.rs", &["data"], "the caller's own body, or a pipe of theirs"),
            (
                "server/cli/src/policy/init.rs",
                &["run", "read_list"],
                "a policy, and a list of tools, for everybody to read",
            ),
            (
                "server/cli/src/role/demo/authority.rs",
                &["Authority::start", "Authority::start"],
                "a policy in the demo's private folder",
            ),
            (
                "server/cli/src/role/demo/home.rs",
                &["Home::start", "Process::failed"],
                "a process's own words in the demo's private folder",
            ),
            (
                "server/cli/src/role/dev/folder.rs",
                &[
                    "DevFolder::remembered",
                    "DevFolder::remembered",
                    "DevFolder::policy",
                    "DevFolder::policy",
                    "DevFolder::policy",
                ],
                "addresses and a policy, in the private folder of `obol dev`",
            ),
            ("server/sandbox/src/harden.rs", &["swaps"], "what the kernel says"),
            ("server/sidecar/src/owner.rs", &["group_of"], "what the kernel says"),
        ],
        faults: &[
            "use std::fs::File;\nfn f() { File::open(a); }",
            "use std::fs;\nfn f() { fs::read(a); }",
            "fn f() { std::fs::OpenOptions::new().write(true).open(a); }",
        ],
    },
    Rule {
        what: "reads hex digits",
        is_done: |call| is_one_of(call, &["from_hex", "bytes_from_hex"]),
        allowed: &[
            ("engine/secret/src/key.rs", &["Key32::from_digits"], "the one that reads a key of 64 digits"),
            ("engine/secret/src/text.rs", &["deserialize::Hex::visit_str"], "fields of documents"),
            ("engine/token/src/text.rs", &["use", "use"], "the same functions under the token's own name"),
            ("engine/atp/src/agent_id.rs", &["AgentId::parse"], "a name"),
            ("engine/atp/src/signature.rs", &["Signature::parse"], "a signature"),
            ("engine/audit/src/chain.rs", &["Read::parse", "Read::parse"], "hashes of a line"),
            ("engine/audit/src/head.rs", &["Head::parse"], "the hash of a line"),
            ("engine/audit/src/reader.rs", &["Walk::line"], "the hash of a line"),
            ("engine/audit/src/verify.rs", &["Check::place"], "the hash of a line"),
            ("engine/conformance/src/mint.rs", &["nonce", "nonce", "nonce"], "a test vector's nonce"),
            ("engine/conformance/src/verify.rs", &["token"], "a test vector's token"),
            ("engine/policy/src/source.rs", &["PolicyDigest::from_str"], "a digest"),
            ("engine/session/src/cursor.rs", &["Cursor::parse"], "an incarnation's number"),
            ("engine/stream/src/word.rs", &["StreamId::deserialize"], "a name"),
            ("engine/token/src/names.rs", &["SessionId::parse"], "a number"),
            ("engine/token/src/scope/mod.rs", &["Scope::check_intent"], "a hash"),
            ("server/atp/src/keys.rs", &["KeyRing::put"], "a key in a row, which is sealed as a whole"),
            ("server/atp/src/secrets.rs", &["master"], "a hash"),
            ("server/authority/src/ssf/outlet_settings.rs", &["FileReceiver::read"], "a hash"),
            ("server/sidecar/src/approved.rs", &["read", "read"], "two hashes"),
            ("server/uplink/src/pinned.rs", &["Pinned::parse"], "a public key"),
        ],
        faults: &[
            "use obol_secret::text::from_hex;\nfn f(a: &str) -> Option<[u8; 32]> { from_hex(a) }",
            "fn f(a: &str) -> Option<[u8; 32]> { obol_secret::text::from_hex(a) }",
        ],
    },
    Rule {
        what: "writes a session document",
        is_done: |call| call.path == "\"K_session\"",
        allowed: &[("engine/session/src/keys.rs", &["ServerKeys::write"], "both halves go through it")],
        faults: &[
            "fn f(to: S) { to.serialize_field(\"K_session\", key); }",
            "fn f() -> Value { json!({\"K_session\": key}) }",
        ],
    },
];

#[test]
fn what_is_done_in_one_place_is_done_nowhere_else() {
    let named = named(&source::all());
    let wrong = RULES.iter().flat_map(|rule| {
        let wrong = against(&found(&named, rule.is_done), rule.allowed);
        wrong.into_iter().map(|place| format!("{}: {place}", rule.what))
    });
    assert_eq!(wrong.collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn whoever_does_it_elsewhere_is_found() {
    for rule in RULES {
        for fault in rule.faults {
            let found = done(&[planted(fault)], rule.is_done);
            assert_eq!(found.len(), 1, "{}: {fault}\n{found:?}", rule.what);
            assert_eq!(
                against(&found, rule.allowed).len(),
                1 + rule.allowed.iter().map(|(_, of, _)| of.len()).sum::<usize>()
            );
        }
    }
}

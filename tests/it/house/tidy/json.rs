//! JSON is read by one reader, `obol_secret::json`. Each place that reads it otherwise stands here, with the reason.
//!
//! A place is a call of `serde_json` that reads, however it is imported, and a type that reads itself from a `Value`: that
//! takes a list for an object, as `serde` does by itself.

use super::calls::Call;
use super::places::{Place, against as against_list, done};
use super::planted;

const READ: [&str; 5] = ["from_reader", "from_slice", "from_str", "from_value", "*"];

pub(super) fn is_read(call: &Call) -> bool {
    let last = call.path.rsplit("::").next().unwrap_or_default();
    let by_the_library =
        call.path.starts_with("serde_json::") && (READ.contains(&last) || call.path.contains("Deserializer"));
    let by_a_type = call.path.contains("::") && last == "deserialize" && !call.is_given_a_reader;
    by_the_library || by_a_type || call.path == "serde_json::Value::parse"
}

pub(super) const ALLOWED: &[Place] = &[
    (
        "client/atp/src/client/revocations.rs",
        &["Client::tombstones"],
        "a file of its own, sealed under its own key",
    ),
    (
        "client/atp/src/keychain/mod.rs",
        &["Keychain::entry"],
        "an entry of its own, sealed, or kept by the keychain",
    ),
    (
        "engine/atp/src/body/mod.rs",
        &["read_object"],
        "it takes nothing but an object, flat, whose names are all known; each mistake has its words",
    ),
    ("engine/atp/src/jwt.rs", &["JwtKey::open"], "claims under a signature of its own"),
    (
        "engine/atp/src/master.rs",
        &["IssueBody::parse"],
        "it takes nothing but an object, flat, whose names are all known; each mistake has its words",
    ),
    (
        "engine/audit/src/chain.rs",
        &["Read::parse"],
        "a line under a MAC, whose known names stand once or it is none",
    ),
    ("engine/audit/src/reader.rs", &["Walk::line"], "the same lines, whose seals were checked"),
    (
        "engine/ipc/src/codec/json/mod.rs",
        &["RequestId::serialize", "from_object", "id_in", "request_envelope", "string_in", "string_in"],
        "typed messages whose names are all known, between programs of one machine",
    ),
    (
        "engine/ipc/src/hello.rs",
        &["ReceivedHello::version", "text_of"],
        "texts of a hello, whose known names stand once; others are left alone",
    ),
    (
        "engine/ipc/src/secret.rs",
        &["raw_object"],
        "finds where a document ends, which is read strictly when it is used",
    ),
    ("engine/queue/src/store/values.rs", &["Values::policy"], "a row of its own"),
    (
        "engine/secret/src/json/mod.rs",
        &["parse", "parse", "parse_and_tell", "parse_and_tell"],
        "the strict reader itself",
    ),
    (
        "engine/secret/src/json/outline.rs",
        &["is_name", "text", "text"],
        "single texts, for the strict reader",
    ),
    ("server/atp/src/store/file.rs", &["read_all"], "a row of its own, sealed"),
    ("server/atp/src/store/shared.rs", &["Keeper::read"], "a row of its own, sealed"),
    ("server/authority/src/directory/tables.rs", &["read_row"], "a row of its own"),
    ("server/authority/src/policy/policies.rs", &["load"], "a row of its own, known by its digest"),
    (
        "server/cli/src/operate/atp/secret.rs",
        &["Book::changed"],
        "the strict reader has read it; now it is kept as it is",
    ),
    (
        "server/cli/src/settings/config.rs",
        &["Gathered::read", "alone"],
        "settings in TOML, where a name cannot stand twice and a list is none",
    ),
    (
        "server/mcp/src/raw.rs",
        &["RawObject::read", "RawObject::text", "elements"],
        "names and texts, read no further; it refuses by itself a name that stands twice",
    ),
];

#[test]
fn whoever_reads_json_otherwise_is_found_at_each_place() {
    for (fault, places) in [
        ("fn f(a: &[u8]) { let _r = serde_json::from_slice::<T>(a); }", 1),
        ("use serde_json::from_slice;\nfn f(a: &[u8]) { let _r: R<T> = from_slice(a); }", 1),
        ("use serde_json::from_slice as read;\nfn f(a: &[u8]) { let _r: R<T> = read(a); }", 1),
        ("use serde_json as json;\nfn f(a: &str) { let _r: R<T> = json::from_str(a); }", 1),
        ("use serde_json::{self as json};\nfn f(a: &str) { let _r: R<T> = json::de::from_str(a); }", 1),
        ("fn f(a: &str) { use serde_json::from_str; let _r: R<T> = from_str(a); }", 1),
        ("use serde_json::*;\nfn f(a: &str) { let _r: R<T> = from_str(a); }", 1),
        ("pub use serde_json::from_str;", 1),
        ("fn f(a: &str) -> Option<T> { a.lines().map(serde_json::from_str).next()?.ok() }", 1),
        ("fn f(a: Value) { let _r = T::deserialize(a); let _s: R<T> = serde_json::from_value(a); }", 2),
        ("fn f(a: Value) { let _r: R<T> = Deserialize::deserialize(&a); }", 1),
        ("fn f(a: Value) { let _r = <&str>::deserialize(&a); }", 1),
        (
            "use serde_json::Deserializer;\nfn f(a: &str) { let _r = Deserializer::from_str(a).into_iter(); }",
            1,
        ),
        ("use serde_json::Value;\nfn f(a: &str) { let _r = a.parse::<Value>(); }", 1),
        ("fn f(a: &str) { g(format!(\"{}\", serde_json::from_str::<T>(a)?)); }", 1),
        ("macro_rules! m { ($a:expr) => { serde_json::from_str($a) }; }", 1),
        ("const R: F = serde_json::from_str;", 1),
        ("#[cfg(any(test, feature = \"x\"))] fn f(a: &str) { let _r: R<T> = serde_json::from_str(a); }", 1),
    ] {
        let found = done(&[planted(fault)], is_read);
        assert_eq!(found.len(), places, "{fault}\n{found:?}");
    }
}

#[test]
fn what_reads_no_json_by_itself_is_not_found() {
    for sound in [
        "use obol_secret::json;\nfn f(a: &[u8]) { let _r: R<T> = json::parse(a); }",
        "fn f<'de, D: Deserializer<'de>>(from: D) -> R<T> { T::deserialize(from) }",
        "impl<'de> Deserialize<'de> for T { fn deserialize<D: Deserializer<'de>>(from: D) -> R<T> { U::deserialize(from) } }",
        "use toml::from_str;\nfn f(a: &str) { let _r: R<T> = from_str(a); }",
        "fn f(a: &str) { let _r = a.parse::<u64>(); let _s = serde_json::Map::from_iter(a); }",
        "#[cfg(test)] mod tests { fn f(a: &str) { let _r: R<T> = serde_json::from_str(a); } }",
        "#[cfg(all(test, feature = \"x\"))] fn f(a: &str) { let _r: R<T> = serde_json::from_str(a); }",
        "#[test] fn f() { let _r: R<T> = serde_json::from_str(\"1\"); }",
    ] {
        assert_eq!(done(&[planted(sound)], is_read), Vec::<String>::new(), "{sound}");
    }
}

#[test]
fn a_second_place_in_a_file_that_has_one_and_a_place_that_is_gone_are_noticed() {
    let read = "let _r: R<T> = serde_json::from_str(a);";
    let file = planted(&format!("fn f(a: &str) {{ {read} }}\nfn g(a: &str) {{ {read} {read} }}"));
    let found = done(&[file], is_read);
    let path = "engine/planted/src/planted.rs";
    let against =
        |functions: &'static [&'static str]| against_list(&found, &[(path, functions, "planted here")]).len();
    assert_eq!([against(&["f", "g", "g"]), against(&["f", "g"]), against(&["f"])], [0, 1, 2]);
    assert_eq!(against(&["f", "g", "g", "h"]), 1);
    let silent: Place = (path, &["f", "g", "g"], "");
    assert_eq!(against_list(&found, &[silent]).len(), 1, "each with its reason");
}

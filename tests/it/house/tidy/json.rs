//! JSON is read by one reader, `obol_secret::json`; who reads it otherwise stands here, with the reason.

use syn::visit::{self, Visit};

use super::source::Source;

/// Files that may read JSON plainly, and why that is enough.
pub(super) const PLAIN: &[(&str, &str)] = &[
    ("client/atp/src/client/revocations.rs", "a file of its own, sealed under its own key"),
    ("client/atp/src/keychain/mod.rs", "an entry of its own, sealed, or kept by the keychain"),
    ("engine/atp/src/body/mod.rs", "flat objects whose names are all known; each mistake has its words"),
    ("engine/atp/src/jwt.rs", "claims under a signature of its own"),
    ("engine/atp/src/master.rs", "a flat object whose names are all known; each mistake has its words"),
    ("engine/audit/src/chain.rs", "lines under a MAC, whose known names stand once or the line is none"),
    ("engine/audit/src/reader.rs", "the same lines, whose seals were checked"),
    (
        "engine/ipc/src/codec/json/mod.rs",
        "typed messages whose names are all known, between programs of one machine",
    ),
    ("engine/ipc/src/hello.rs", "texts of a hello, whose known names stand once; others are left alone"),
    ("engine/ipc/src/secret.rs", "finds where a document ends, which is read strictly when it is used"),
    ("engine/queue/src/store/values.rs", "a row of its own"),
    ("engine/secret/src/json/", "the strict reader itself"),
    ("server/atp/src/store/file.rs", "a row of its own, sealed"),
    ("server/atp/src/store/shared.rs", "a row of its own, sealed"),
    ("server/authority/src/directory/tables.rs", "a row of its own"),
    ("server/authority/src/jws/key.rs", "parts of a set that the strict reader has read, each on its own"),
    ("server/authority/src/policy/policies.rs", "a row of its own, known by its digest"),
    ("server/cli/src/operate/atp/secret.rs", "the strict reader has read it; now it is kept as it is"),
    ("server/cli/src/role/demo/http.rs", "the demo's own server"),
    ("server/mcp/src/message.rs", "a part of what the strict reader has read"),
    ("server/mcp/src/raw.rs", "names and texts, read no further; refuses by itself a name that stands twice"),
    ("server/mcp/src/result.rs", "a part of what the caller has read"),
];

/// Where a file's code, not its tests, calls `serde_json` to read.
pub(super) fn read_plainly(source: &Source) -> Vec<String> {
    let name = source.path.rsplit('/').next().unwrap_or_default();
    let is_code = source.path.contains("/src/")
        && !source.path.contains("/tests/")
        && !["tests.rs", "vectors.rs"].contains(&name)
        && ["engine/", "client/", "server/"].iter().any(|floor| source.path.starts_with(floor));
    if !is_code {
        return Vec::new();
    }
    let mut found = Plain(Vec::new());
    found.visit_file(source.file());
    found.0.iter().map(|call| format!("{}: reads JSON by `serde_json::{call}`", source.path)).collect()
}

struct Plain(Vec<String>);

impl<'ast> Visit<'ast> for Plain {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        let is_test = |attribute: &syn::Attribute| {
            attribute.path().is_ident("cfg")
                && attribute.parse_args::<syn::Ident>().is_ok_and(|condition| condition == "test")
        };
        if !module.attrs.iter().any(is_test) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if let [package, .., call] = names.as_slice()
            && package == "serde_json"
            && call.starts_with("from_")
        {
            self.0.push(call.clone());
        }
        visit::visit_path(self, path);
    }
}

//! One word means one thing. A type's name that two libraries give away stands here, with the reason.

use std::collections::{BTreeMap, BTreeSet};

use super::calls::is_shipped;
use super::public::is_public;
use super::source::Source;

/// Names of types, the packages that have one each, and why both may.
pub(super) type Shared = (&'static str, &'static [&'static str], &'static str);

pub(super) const SHARED: &[Shared] = &[
    ("Agent", &["client/agent", "server/authority"], "the same agent, as it is and as it is registered"),
    ("AgentStatus", &["engine/ipc", "server/authority"], "the same thing, on the wire and inside"),
    (
        "Answer",
        &["server/authority", "server/sidecar", "server/uplink"],
        "what each server's own caller gets back",
    ),
    (
        "Approval",
        &["client/agent", "server/authority"],
        "a human's yes, as it is asked for and as it is given",
    ),
    ("ApprovedUse", &["engine/ipc", "engine/stream"], "the same thing, on two wires"),
    ("AskedApproval", &["engine/ipc", "server/authority"], "the same thing, on the wire and inside"),
    ("AskedCall", &["engine/ipc", "server/authority"], "the same thing, on the wire and inside"),
    (
        "Begun",
        &["engine/verify", "server/uplink"],
        "of a receipt and of a handshake; no crate but the binary knows both",
    ),
    (
        "Body",
        &["client/agent", "engine/atp", "engine/ipc", "engine/token"],
        "what a request, a message and a token hold, each said of its own crate's",
    ),
    ("Bounds", &["engine/secret", "server/probe"], "how much of something, said with its module"),
    ("Call", &["engine/session", "server/mcp"], "a call, as a grant knows it and as MCP does"),
    ("Caller", &["server/proxy", "server/uplink"], "who calls, each the server that it is in"),
    ("Channel", &["client/agent", "server/mcp"], "the same channel, and what the wrapper wants of one"),
    ("Client", &["client/atp", "client/ipc"], "who embeds one has the crate's name before it"),
    ("DeniedTool", &["engine/ipc", "server/authority"], "the same thing, on the wire and inside"),
    (
        "Draw",
        &["engine/queue", "server/mcp-http"],
        "which token is drawn, and who draws; no crate but the binary knows both",
    ),
    (
        "Ended",
        &["server/authority", "server/mcp-http", "server/probe"],
        "what is over: a session, a bridge, a server",
    ),
    (
        "Event",
        &["engine/audit", "server/authority", "server/mcp"],
        "what happened, each in its own log or stream",
    ),
    ("Events", &["server/authority", "server/mcp"], "several of those"),
    ("Follower", &["server/authority", "server/resource"], "who follows the service, as each side sees it"),
    ("FrameError", &["engine/ipc", "engine/stream"], "the same for two wires"),
    ("Frames", &["engine/ipc", "engine/stream"], "the same for two wires"),
    ("Front", &["server/mcp", "server/probe"], "what stands in front, said with its module"),
    (
        "Greeted",
        &["server/probe", "server/uplink"],
        "of TLS and of a handshake; no crate but the binary knows both",
    ),
    (
        "Handle",
        &[
            "server/atp",
            "server/authenticator",
            "server/authority",
            "server/gateway",
            "server/mcp-http",
            "server/proxy",
            "server/resource",
            "server/sidecar",
        ],
        "a word of the servers' contract",
    ),
    (
        "Limits",
        &["engine/verify", "server/probe"],
        "of receipts and of connections, each said with its module",
    ),
    ("Opened", &["engine/verify", "server/authority"], "a token and a session, each by its own crate alone"),
    (
        "Options",
        &[
            "client/atp",
            "server/authenticator",
            "server/authority",
            "server/probe",
            "server/proxy",
            "server/resource",
            "server/sidecar",
        ],
        "a word of the servers' contract",
    ),
    (
        "Place",
        &["engine/audit", "server/probe"],
        "of a line in a log, and of a connection among those that are open",
    ),
    ("PolicyVersion", &["engine/policy", "server/authority"], "a version, and what is kept of it"),
    (
        "Problem",
        &["engine/ipc", "engine/policy"],
        "of a connection and of a catalogue; no crate but the binary knows both",
    ),
    ("Proven", &["engine/handshake", "server/uplink"], "the two ends of one handshake"),
    ("Proxy", &["server/mcp-http", "server/proxy"], "a proxy each, of MCP and of HTTP"),
    ("Registered", &["server/authenticator", "server/authority"], "the two ends of one registration"),
    (
        "Registration",
        &["client/agent", "engine/policy", "server/authority"],
        "the same registration, as each of them knows it",
    ),
    (
        "RegistrationState",
        &["engine/ipc", "server/authenticator", "server/authority"],
        "the same thing, on the wire and inside",
    ),
    (
        "Request",
        &["engine/ipc", "engine/verify"],
        "of a socket and to a resource server; no crate but the binary knows both",
    ),
    (
        "Route",
        &["engine/ipc", "engine/policy", "server/authenticator", "server/authority"],
        "the same thing, written down, on the wire and inside",
    ),
    (
        "Service",
        &[
            "server/atp",
            "server/authenticator",
            "server/authority",
            "server/gateway",
            "server/mcp-http",
            "server/proxy",
            "server/resource",
            "server/sidecar",
        ],
        "a word of the servers' contract",
    ),
    ("Session", &["engine/verify", "server/authenticator"], "the same session, at its two ends"),
    ("SessionState", &["engine/ipc", "engine/queue"], "the same thing, on the wire and inside"),
    (
        "Token",
        &["client/agent", "client/atp", "engine/queue"],
        "who embeds one has the crate's name before it",
    ),
    ("ToolStatus", &["engine/ipc", "engine/queue"], "the same thing, on the wire and inside"),
    ("Unavailable", &["engine/queue", "server/authority"], "that a store failed, each its own"),
    ("Verdict", &["engine/policy", "server/authority"], "the answer to one question, and what is kept of it"),
];

/// The names of the types that each library gives away and that are its own, by the packages that have them.
pub(super) fn given_away(sources: &[Source]) -> BTreeMap<String, BTreeSet<String>> {
    let by_path: BTreeMap<&str, &Source> = sources
        .iter()
        .filter(|source| is_shipped(source))
        .map(|source| (source.path.as_str(), source))
        .collect();
    let mut found = BTreeMap::<String, BTreeSet<String>>::new();
    for root in by_path.keys().filter(|path| path.ends_with("/src/lib.rs")) {
        let folder = root.trim_end_matches("lib.rs");
        let mut names = BTreeSet::new();
        exported(&by_path, root, folder, &mut names);
        let own = by_path.range(folder..).take_while(|(path, _)| path.starts_with(folder));
        let types = own.flat_map(|(_, source)| source.file().items.iter().filter_map(public_type));
        for name in types.filter(|name| names.contains(name)) {
            let _known = found.entry(name).or_default().insert(folder.trim_end_matches("/src/").to_owned());
        }
    }
    found
}

/// What a module gives away by name, itself or through its public modules.
fn exported(sources: &BTreeMap<&str, &Source>, path: &str, folder: &str, names: &mut BTreeSet<String>) {
    let Some(source) = sources.get(path) else { return };
    for item in &source.file().items {
        match item {
            syn::Item::Use(item) if is_public(&item.vis) => leaves(&item.tree, names),
            syn::Item::Mod(module) if is_public(&module.vis) => {
                let name = &module.ident;
                exported(sources, &format!("{folder}{name}.rs"), &format!("{folder}{name}/"), names);
                exported(sources, &format!("{folder}{name}/mod.rs"), &format!("{folder}{name}/"), names);
            }
            item => names.extend(public_type(item)),
        }
    }
}

fn public_type(item: &syn::Item) -> Option<String> {
    let (visibility, name) = match item {
        syn::Item::Struct(item) => (&item.vis, &item.ident),
        syn::Item::Enum(item) => (&item.vis, &item.ident),
        syn::Item::Trait(item) => (&item.vis, &item.ident),
        syn::Item::Type(item) => (&item.vis, &item.ident),
        _ => return None,
    };
    is_public(visibility).then(|| name.to_string())
}

fn leaves(tree: &syn::UseTree, found: &mut BTreeSet<String>) {
    match tree {
        syn::UseTree::Path(path) => leaves(&path.tree, found),
        syn::UseTree::Group(group) => group.items.iter().for_each(|tree| leaves(tree, found)),
        syn::UseTree::Name(name) => drop(found.insert(name.ident.to_string())),
        syn::UseTree::Rename(_) | syn::UseTree::Glob(_) => {}
    }
}

/// The names that no list allows, and what the list allows though it is not so.
fn against(found: &BTreeMap<String, BTreeSet<String>>, allowed: &[Shared]) -> Vec<String> {
    let line = |name: &str, packages: &[String]| format!("{name}: {}", packages.join(", "));
    let several = found.iter().filter(|(_, packages)| packages.len() > 1);
    let found: BTreeSet<String> =
        several.map(|(name, packages)| line(name, &packages.iter().cloned().collect::<Vec<_>>())).collect();
    let allowed: BTreeSet<String> = allowed
        .iter()
        .map(|(name, packages, _)| line(name, &packages.iter().map(|&of| of.to_owned()).collect::<Vec<_>>()))
        .collect();
    let new = found.difference(&allowed).cloned();
    new.chain(allowed.difference(&found).map(|line| format!("not needed any more: {line}"))).collect()
}

#[test]
fn no_two_libraries_give_a_type_the_same_name_without_a_reason() {
    let found = given_away(&super::source::all());
    assert!(found.len() > 300, "there are {} types", found.len());
    assert_eq!(against(&found, SHARED), Vec::<String>::new());
    assert!(SHARED.iter().all(|(_, _, reason)| reason.contains(' ')), "each with its reason");
}

#[test]
fn a_name_that_two_libraries_have_is_noticed_and_one_that_nobody_sees_is_not() {
    let library =
        |package: &str, text: &str| Source::parse(&format!("engine/{package}/src/lib.rs"), text.to_owned());
    let module =
        |package: &str, text: &str| Source::parse(&format!("engine/{package}/src/a.rs"), text.to_owned());
    let sources = [
        library("one", "mod a;\npub use a::{Same, Word};\n"),
        module("one", "pub struct Word;\npub struct Same;\npub struct Hidden;\n"),
        library("two", "pub mod a;\n"),
        module("two", "pub enum Word { A }\npub struct Hidden;\npub(crate) struct Same;\n"),
        library("three", "pub use one::Word;\n"),
    ];
    let found = given_away(&sources);
    assert_eq!(against(&found, &[]), ["Word: engine/one, engine/two"]);
    assert_eq!(
        against(&found, &[("Word", &["engine/one", "engine/two"], "one of one")]),
        Vec::<String>::new()
    );
    let stale = against(&found, &[("Same", &["engine/one", "engine/two"], "was so")]);
    assert_eq!(stale.len(), 2, "{stale:?}");
}

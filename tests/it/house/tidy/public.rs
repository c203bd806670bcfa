//! What can be imported can be imported by one name, as far as one file says it. `scripts/public-api --twice` looks further.

use std::collections::BTreeSet;

use super::source::Source;

/// What a file makes public under two names: something of a module that is public itself, or one path exported again.
pub(super) fn twice(source: &Source) -> Vec<String> {
    let is_root = source.path.ends_with("src/lib.rs");
    let found = of_a_module(&source.file().items, is_root);
    found.into_iter().map(|name| format!("{}: `{name}` is public under two names", source.path)).collect()
}

/// `is_root`: `crate` is this module.
fn of_a_module(items: &[syn::Item], is_root: bool) -> Vec<String> {
    let public_modules: Vec<&syn::ItemMod> = items.iter().filter_map(public_module).collect();
    let mut exported = Vec::new();
    for item in items {
        if let syn::Item::Use(item) = item
            && is_public(&item.vis)
        {
            leaves(&item.tree, Vec::new(), &mut exported);
        }
    }
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for mut path in exported {
        let here = path.iter().take_while(|name| *name == "self" || (is_root && *name == "crate")).count();
        path.drain(..here);
        let of_a_public_module =
            path.first().is_some_and(|first| public_modules.iter().any(|module| module.ident == first));
        let name = path.join("::");
        if of_a_public_module || !seen.insert(name.clone()) {
            found.push(name);
        }
    }
    let inner = public_modules.iter().filter_map(|module| module.content.as_ref());
    found.extend(inner.flat_map(|(_, items)| of_a_module(items, false)));
    found
}

pub(super) fn is_public(visibility: &syn::Visibility) -> bool {
    matches!(visibility, syn::Visibility::Public(_))
}

fn public_module(item: &syn::Item) -> Option<&syn::ItemMod> {
    match item {
        syn::Item::Mod(module) if is_public(&module.vis) => Some(module),
        _ => None,
    }
}

/// The paths that a `use` names, groups taken apart, each as it is called where it comes from.
fn leaves(tree: &syn::UseTree, mut above: Vec<String>, found: &mut Vec<Vec<String>>) {
    let last = match tree {
        syn::UseTree::Path(path) => {
            above.push(path.ident.to_string());
            return leaves(&path.tree, above, found);
        }
        syn::UseTree::Group(group) => {
            return group.items.iter().for_each(|tree| leaves(tree, above.clone(), found));
        }
        syn::UseTree::Name(name) => name.ident.to_string(),
        syn::UseTree::Rename(rename) => rename.ident.to_string(),
        syn::UseTree::Glob(_) => "*".to_owned(),
    };
    // `a::{self}` is `a`.
    if last != "self" {
        above.push(last);
    }
    found.push(above);
}

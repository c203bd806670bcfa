//! Imports in three blocks: the standard library, other crates, this crate; a line between them and none within.

use syn::spanned::Spanned as _;

use super::source::Source;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Block {
    Standard,
    Others,
    Own,
}

/// The file's imports up to what comes after them; what is exported, or imported under a condition, stands apart.
fn imports(file: &syn::File) -> Vec<&syn::ItemUse> {
    let plain = |item: &syn::ItemUse| item.attrs.is_empty() && matches!(item.vis, syn::Visibility::Inherited);
    let uses = file.items.iter().map(|item| match item {
        syn::Item::Use(item) if plain(item) => Some(item),
        _ => None,
    });
    uses.skip_while(Option::is_none).map_while(|item| item).collect()
}

fn block_of(item: &syn::ItemUse, modules: &[String]) -> Block {
    let root = match &item.tree {
        syn::UseTree::Path(path) => path.ident.to_string(),
        syn::UseTree::Name(name) => name.ident.to_string(),
        syn::UseTree::Rename(name) => name.ident.to_string(),
        syn::UseTree::Glob(_) | syn::UseTree::Group(_) => return Block::Others,
    };
    match root.as_str() {
        "std" | "core" | "alloc" => Block::Standard,
        "crate" | "self" | "super" => Block::Own,
        _ if modules.contains(&root) => Block::Own,
        _ => Block::Others,
    }
}

pub(super) fn out_of_order(source: &Source) -> Vec<String> {
    let file = source.file();
    let modules: Vec<String> = file
        .items
        .iter()
        .filter_map(|item| match item {
            syn::Item::Mod(module) => Some(module.ident.to_string()),
            _ => None,
        })
        .collect();
    let wrong = |pair: &&[&syn::ItemUse]| {
        let [one, next] = pair else { return false };
        let apart = next.span().start().line - one.span().end().line;
        match block_of(one, &modules).cmp(&block_of(next, &modules)) {
            core::cmp::Ordering::Less => apart != 2,
            core::cmp::Ordering::Equal => apart != 1,
            core::cmp::Ordering::Greater => true,
        }
    };
    let imports = imports(file);
    let found = imports.windows(2).find(wrong);
    found
        .map(|pair| {
            let line = pair.last().map_or(0, |next| next.span().start().line);
            format!("{}: the import in line {line} is not in its block", source.path)
        })
        .into_iter()
        .collect()
}

//! What a file's code names: every path and text in an expression or in a macro's arguments, paths resolved through the
//! file's imports, and which traits it has for what; and the function that names it. Code that is compiled for tests alone is left out.

use std::collections::BTreeMap;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

use super::source::Source;

/// One path, at one place.
pub(super) struct Call {
    /// The function it is in, with the type whose function it is; the name of a constant, or of a macro.
    pub(super) within: String,
    /// As in `serde_json::from_slice`, whatever it is imported as; a text in quotation marks; `impl::Clock`.
    pub(super) path: String,
    /// Whether that function reads from whatever `Deserializer` it is given, and so reads nothing by itself.
    pub(super) is_given_a_reader: bool,
}

impl Call {
    /// Whether the path ends with these names.
    pub(super) fn ends_with(&self, names: &str) -> bool {
        self.path == names || self.path.ends_with(&format!("::{names}"))
    }
}

/// Whether a file is shipped: neither a test, nor an example, nor what measures.
pub(super) fn is_shipped(source: &Source) -> bool {
    let name = source.path.rsplit('/').next().unwrap_or_default();
    source.path.contains("/src/")
        && !source.path.contains("/tests/")
        && !["tests.rs", "vectors.rs"].contains(&name)
        && ["engine/", "client/", "server/"].iter().any(|floor| source.path.starts_with(floor))
}

/// What the code of a shipped file names; of others, nothing.
pub(super) fn of(source: &Source) -> Vec<Call> {
    if !is_shipped(source) {
        return Vec::new();
    }
    let mut imports = Imports::default();
    imports.visit_file(source.file());
    let mut calls = Calls { imports, within: Vec::new(), found: Vec::new() };
    calls.visit_file(source.file());
    let imported = calls.imports.whole.iter().map(|path| Call {
        within: "use".to_owned(),
        path: path.clone(),
        is_given_a_reader: false,
    });
    let imported: Vec<Call> = imported.collect();
    calls.found.extend(imported);
    calls.found
}

/// Whether something is compiled for tests alone.
fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    fn needs_test(condition: &syn::Meta) -> bool {
        match condition {
            syn::Meta::Path(path) => path.is_ident("test"),
            syn::Meta::List(list) if list.path.is_ident("all") => list
                .parse_args_with(syn::punctuated::Punctuated::<syn::Meta, syn::Token![,]>::parse_terminated)
                .is_ok_and(|all| all.iter().any(needs_test)),
            _ => false,
        }
    }
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || (attribute.path().is_ident("cfg")
                && attribute.parse_args::<syn::Meta>().is_ok_and(|condition| needs_test(&condition)))
    })
}

/// By which name a file knows what.
#[derive(Default)]
struct Imports {
    names: BTreeMap<String, String>,
    /// All that a module has (`use serde_json::*`), and what is exported again: nobody could tell who calls it.
    whole: Vec<String>,
}

impl Imports {
    fn add(&mut self, tree: &syn::UseTree, above: &str, is_exported: bool) {
        let under = |name: &syn::Ident| match above {
            "" => name.to_string(),
            above => format!("{above}::{name}"),
        };
        match tree {
            syn::UseTree::Path(path) => self.add(&path.tree, &under(&path.ident), is_exported),
            syn::UseTree::Name(name) if name.ident == "self" => {
                let last = above.rsplit("::").next().unwrap_or_default();
                self.keep(last.to_owned(), above.to_owned(), is_exported);
            }
            syn::UseTree::Name(name) => self.keep(name.ident.to_string(), under(&name.ident), is_exported),
            syn::UseTree::Rename(name) if name.ident == "self" => {
                self.keep(name.rename.to_string(), above.to_owned(), is_exported);
            }
            syn::UseTree::Rename(name) => {
                self.keep(name.rename.to_string(), under(&name.ident), is_exported);
            }
            syn::UseTree::Glob(_) => self.whole.push(format!("{above}::*")),
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.add(tree, above, is_exported));
            }
        }
    }

    fn keep(&mut self, name: String, path: String, is_exported: bool) {
        if is_exported {
            self.whole.push(path.clone());
        }
        let _same = self.names.insert(name, path);
    }

    fn resolve(&self, names: &[String]) -> String {
        let Some((first, rest)) = names.split_first() else { return String::new() };
        let first = self.names.get(first).unwrap_or(first);
        [core::slice::from_ref(first), rest].concat().join("::")
    }
}

impl<'ast> Visit<'ast> for Imports {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if !is_for_tests(&module.attrs) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !is_for_tests(&item.attrs) {
            self.add(&item.tree, "", !matches!(item.vis, syn::Visibility::Inherited));
        }
    }
}

/// A function, or what else code is in.
struct Within {
    name: String,
    is_given_a_reader: bool,
}

/// Whether a signature speaks of a reader.
struct Given(bool);

impl<'ast> Visit<'ast> for Given {
    fn visit_path_segment(&mut self, segment: &'ast syn::PathSegment) {
        let readers = ["Deserializer", "MapAccess", "SeqAccess", "EnumAccess", "VariantAccess"];
        self.0 |= readers.iter().any(|reader| segment.ident == reader);
        visit::visit_path_segment(self, segment);
    }
}

struct Calls {
    imports: Imports,
    within: Vec<Within>,
    found: Vec<Call>,
}

impl Calls {
    fn inside(&mut self, name: String, is_given_a_reader: bool, visit: impl FnOnce(&mut Self)) {
        self.within.push(Within { name, is_given_a_reader });
        visit(self);
        let _left = self.within.pop();
    }

    fn function(&mut self, signature: &syn::Signature, visit: impl FnOnce(&mut Self)) {
        let mut given = Given(false);
        given.visit_signature(signature);
        self.inside(signature.ident.to_string(), given.0, visit);
    }

    fn add(&mut self, names: &[String]) {
        let within: Vec<&str> = self.within.iter().map(|within| within.name.as_str()).collect();
        self.found.push(Call {
            within: within.join("::"),
            path: self.imports.resolve(names),
            is_given_a_reader: self.within.iter().any(|within| within.is_given_a_reader),
        });
    }

    fn text(&mut self, text: &str) {
        self.add(&[format!("{text:?}")]);
    }

    /// The paths in a macro's arguments, which are not parsed.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for tree in tokens {
            match tree {
                TokenTree::Ident(name) => {
                    if colons != 2 {
                        self.flush(&mut path);
                    }
                    path.push(name.to_string());
                }
                TokenTree::Punct(sign) if sign.as_char() == ':' => {
                    colons += 1;
                    continue;
                }
                TokenTree::Group(group) => {
                    self.flush(&mut path);
                    self.tokens(group.stream());
                }
                TokenTree::Punct(_) => self.flush(&mut path),
                TokenTree::Literal(literal) => {
                    self.flush(&mut path);
                    if let Ok(text) = syn::parse_str::<syn::LitStr>(&literal.to_string()) {
                        self.text(&text.value());
                    }
                }
            }
            colons = 0;
        }
        self.flush(&mut path);
    }

    fn flush(&mut self, path: &mut Vec<String>) {
        if !path.is_empty() {
            self.add(path);
            path.clear();
        }
    }
}

impl<'ast> Visit<'ast> for Calls {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if !is_for_tests(&module.attrs) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_for_tests(&item.attrs) {
            self.function(&item.sig, |calls| visit::visit_item_fn(calls, item));
        }
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let name = match &*item.self_ty {
            syn::Type::Path(path) => path.path.segments.last().map(|last| last.ident.to_string()),
            _ => None,
        };
        if is_for_tests(&item.attrs) {
            return;
        }
        self.inside(name.unwrap_or_default(), false, |calls| {
            if let Some((of, _)) = &item.trait_ {
                let last = of.segments.last().map(|last| last.ident.to_string());
                calls.add(&["impl".to_owned(), last.unwrap_or_default()]);
            }
            visit::visit_item_impl(calls, item);
        });
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.inside(item.ident.to_string(), false, |calls| visit::visit_item_trait(calls, item));
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_for_tests(&item.attrs) {
            self.function(&item.sig, |calls| visit::visit_impl_item_fn(calls, item));
        }
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        self.function(&item.sig, |calls| visit::visit_trait_item_fn(calls, item));
    }

    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        self.inside(item.ident.to_string(), false, |calls| visit::visit_item_const(calls, item));
    }

    fn visit_item_static(&mut self, item: &'ast syn::ItemStatic) {
        self.inside(item.ident.to_string(), false, |calls| visit::visit_item_static(calls, item));
    }

    fn visit_attribute(&mut self, _attribute: &'ast syn::Attribute) {}

    fn visit_item_use(&mut self, _imports: &'ast syn::ItemUse) {}

    fn visit_expr_path(&mut self, path: &'ast syn::ExprPath) {
        let mut names: Vec<String> =
            path.path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if let (Some(_), 1) = (&path.qself, names.len()) {
            // `<T>::name`: of a type without a name.
            names.insert(0, "_".to_owned());
        }
        self.add(&names);
        visit::visit_expr_path(self, path);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        // `text.parse::<Value>()`: a call of what the type has.
        if let Some(types) = &call.turbofish {
            for kind in &types.args {
                if let syn::GenericArgument::Type(syn::Type::Path(kind)) = kind {
                    let kind = kind.path.segments.iter().map(|segment| segment.ident.to_string());
                    let names: Vec<String> = kind.chain([call.method.to_string()]).collect();
                    self.add(&names);
                }
            }
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_lit_str(&mut self, text: &'ast syn::LitStr) {
        self.text(&text.value());
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        let is_given_a_reader = call.tokens.to_string().contains("Deserializer");
        let name = call.path.segments.last().map(|last| format!("{}!", last.ident)).unwrap_or_default();
        // What a macro makes of its arguments is code of the function it stands in.
        if self.within.is_empty() || is_given_a_reader {
            self.inside(name, is_given_a_reader, |calls| calls.tokens(call.tokens.clone()));
        } else {
            self.tokens(call.tokens.clone());
        }
    }
}

//! The tree's Rust files, parsed.

use core::cell::OnceCell;
use std::path::{Path, PathBuf};

use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

pub(super) use crate::house::root;

/// Where Rust files are. What builds leave behind is not searched.
const FOLDERS: [&str; 6] = ["engine", "client", "server", "benches", "fuzz", "tests"];
const NOT_OURS: [&str; 4] = ["target", "node_modules", "corpus", "generated"];

pub(super) struct Source {
    /// From the root of the tree.
    pub(super) path: String,
    pub(super) text: String,
    /// Parsed when it is first needed.
    file: OnceCell<syn::File>,
}

pub(super) struct Function {
    pub(super) name: String,
    pub(super) lines: usize,
}

pub(super) struct Constant {
    pub(super) name: String,
    pub(super) documentation: String,
    pub(super) is_number: bool,
}

impl Source {
    pub(super) fn parse(path: &str, text: String) -> Self {
        Self { path: path.to_owned(), text, file: OnceCell::new() }
    }

    pub(super) fn file(&self) -> &syn::File {
        self.file.get_or_init(|| {
            syn::parse_file(&self.text).unwrap_or_else(|error| panic!("{}: {error}", self.path))
        })
    }

    fn into_file(self) -> syn::File {
        let _parsed = self.file();
        self.file.into_inner().unwrap()
    }

    pub(super) fn functions(&self) -> Vec<Function> {
        let mut found = Functions(Vec::new());
        found.visit_file(self.file());
        found.0
    }

    pub(super) fn constants(&self) -> Vec<Constant> {
        let mut found = Constants(Vec::new());
        found.visit_file(self.file());
        found.0
    }

    /// The texts in the code, those in the arguments of macros as well.
    pub(super) fn strings(&self) -> Vec<String> {
        let mut found = Strings(Vec::new());
        found.visit_file(self.file());
        found.0
    }
}

struct Functions(Vec<Function>);

impl Functions {
    fn add(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let first = signature.fn_token.span().start().line;
        let last = block.brace_token.span.close().end().line;
        self.0.push(Function { name: signature.ident.to_string(), lines: last - first + 1 });
    }
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.add(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.add(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.add(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }
}

struct Constants(Vec<Constant>);

impl Constants {
    fn add(&mut self, ident: &syn::Ident, attributes: &[syn::Attribute], kind: &syn::Type) {
        let numbers = ["u8", "u16", "u32", "u64", "u128", "usize", "i32", "i64", "f64"];
        let is_number =
            matches!(kind, syn::Type::Path(path) if numbers.iter().any(|number| path.path.is_ident(number)));
        self.0.push(Constant {
            name: ident.to_string(),
            documentation: documentation(attributes),
            is_number,
        });
    }
}

impl<'ast> Visit<'ast> for Constants {
    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        self.add(&item.ident, &item.attrs, &item.ty);
        visit::visit_item_const(self, item);
    }

    fn visit_impl_item_const(&mut self, item: &'ast syn::ImplItemConst) {
        self.add(&item.ident, &item.attrs, &item.ty);
        visit::visit_impl_item_const(self, item);
    }
}

fn documentation(attributes: &[syn::Attribute]) -> String {
    let line = |attribute: &syn::Attribute| {
        let syn::Meta::NameValue(pair) = &attribute.meta else { return None };
        let syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) = &pair.value else { return None };
        attribute.path().is_ident("doc").then(|| text.value())
    };
    attributes.iter().filter_map(line).collect()
}

struct Strings(Vec<String>);

impl<'ast> Visit<'ast> for Strings {
    fn visit_lit_str(&mut self, text: &'ast syn::LitStr) {
        self.0.push(text.value());
    }

    fn visit_attribute(&mut self, _attribute: &'ast syn::Attribute) {}

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.0.extend(texts(call.tokens.clone()));
    }
}

fn texts(tokens: proc_macro2::TokenStream) -> Vec<String> {
    let text = |tree: proc_macro2::TokenTree| match tree {
        proc_macro2::TokenTree::Group(group) => texts(group.stream()),
        proc_macro2::TokenTree::Literal(literal) => {
            syn::parse_str::<syn::LitStr>(&literal.to_string()).map(|text| text.value()).into_iter().collect()
        }
        _ => Vec::new(),
    };
    tokens.into_iter().flat_map(text).collect()
}

/// Every Rust file of the tree.
pub(super) fn all() -> Vec<Source> {
    let mut paths = Vec::new();
    for folder in FOLDERS {
        walk(&root().join(folder), &mut paths);
    }
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}

fn read(path: &Path) -> Source {
    let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
    Source::parse(&name, std::fs::read_to_string(path).unwrap())
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            if !NOT_OURS.iter().any(|name| path.ends_with(name)) {
                walk(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The folders of the packages that have a library or a binary under `src`, such as `engine/token`.
pub(super) fn packages() -> Vec<String> {
    let mut found = Vec::new();
    for floor in ["engine", "client", "server", "tests"] {
        for entry in std::fs::read_dir(root().join(floor)).unwrap().map(Result::unwrap) {
            if entry.path().join("Cargo.toml").exists() {
                found.push(format!("{floor}/{}", entry.file_name().to_str().unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// The modules of a package that are files, by their path in the package.
pub(super) fn modules(package: &str) -> Vec<(Vec<String>, syn::File)> {
    let folder = root().join(package).join("src");
    let mut paths = Vec::new();
    walk(&folder, &mut paths);
    let module = |path: &PathBuf| {
        let name = path.strip_prefix(&folder).unwrap().with_extension("");
        let mut parts: Vec<String> = name.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
        if parts.last().is_some_and(|last| last == "mod") || parts == ["lib"] || parts == ["main"] {
            let _file = parts.pop();
        }
        (parts, read(path).into_file())
    };
    let mut modules: Vec<_> = paths.iter().map(module).collect();
    // A package with a library and a binary has two roots: the library's modules are both's.
    modules.sort_by(|(a, _), (b, _)| a.cmp(b));
    modules
}

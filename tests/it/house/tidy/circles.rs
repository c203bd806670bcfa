//! Which modules of a package import each other in a circle.
//!
//! Looked at folder by folder: what lies side by side in one folder must have an order, a folder counting with all that is
//! in it. A folder's own `mod.rs` and its parts may know each other. Re-exports are followed, tests do not count.

use std::collections::{BTreeMap, BTreeSet};

use syn::visit::{self, Visit};

type Path = Vec<String>;

#[derive(Default)]
struct Module {
    /// What its `use` lines bring in: the name here, and the path from the package's root.
    names: BTreeMap<String, Path>,
    globs: Vec<Path>,
    /// What it defines itself.
    items: BTreeSet<String>,
    /// Every path from the package's root that it names.
    uses: Vec<Path>,
}

/// Modules from texts, for what is planted.
pub(super) fn parse(modules: &[(&str, &str)]) -> Vec<(Path, syn::File)> {
    let path = |name: &str| name.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect();
    modules.iter().map(|(name, text)| (path(name), syn::parse_file(text).unwrap())).collect()
}

/// The circles, each as the sorted names of its members from the package's root.
pub(super) fn of(files: &[(Path, syn::File)]) -> Vec<Vec<String>> {
    let tests: BTreeSet<Path> = files.iter().flat_map(|(path, file)| test_files(path, file)).collect();
    let shipped =
        files.iter().filter(|(path, _)| !(0..=path.len()).any(|length| tests.contains(&path[..length])));
    let known: BTreeSet<Path> = shipped.clone().map(|(path, _)| path.clone()).collect();
    let mut modules: BTreeMap<Path, Module> = BTreeMap::new();
    for (path, file) in shipped {
        let mut reader = Reader { known: &known, here: path.clone(), module: Module::default() };
        reader.visit_file(file);
        let module = modules.entry(path.clone()).or_default();
        module.names.extend(reader.module.names);
        module.globs.extend(reader.module.globs);
        module.items.extend(reader.module.items);
        module.uses.extend(reader.module.uses);
    }
    let mut arrows = BTreeSet::new();
    for (path, module) in &modules {
        arrows.extend(module.uses.iter().map(|used| (path.clone(), resolve(&modules, used, 0))));
    }
    let folders: BTreeSet<&[String]> = known.iter().filter_map(|path| Some(path.split_last()?.1)).collect();
    folders.into_iter().flat_map(|folder| circles_in(folder, &arrows)).collect()
}

/// Modules in files of their own that only tests see.
fn test_files(path: &Path, file: &syn::File) -> Vec<Path> {
    let test = |item: &syn::Item| match item {
        syn::Item::Mod(module) if module.content.is_none() && is_test(&module.attrs) => {
            Some([path.as_slice(), &[module.ident.to_string()]].concat())
        }
        _ => None,
    };
    file.items.iter().filter_map(test).collect()
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    let test = |attribute: &syn::Attribute| match &attribute.meta {
        syn::Meta::List(list) if list.path.is_ident("cfg") => list.tokens.to_string() == "test",
        _ => false,
    };
    attributes.iter().any(test)
}

struct Reader<'known> {
    known: &'known BTreeSet<Path>,
    /// The module that is read, with the inline ones it is inside of.
    here: Path,
    module: Module,
}

impl Reader<'_> {
    /// From the package's root; `None` if the path leads out of the package.
    fn absolute(&self, path: &[String]) -> Option<Path> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => Some(rest.to_vec()),
            "self" => Some([&self.here, rest].concat()),
            "super" => {
                let mut here = self.here.clone();
                let ups = path.iter().take_while(|part| *part == "super").count();
                here.truncate(here.len().checked_sub(ups)?);
                here.extend_from_slice(path.get(ups..)?);
                Some(here)
            }
            _ => {
                let child = [self.here.as_slice(), core::slice::from_ref(first)].concat();
                self.known.contains(&child).then(|| [&self.here, path].concat())
            }
        }
    }

    fn import(&mut self, tree: &syn::UseTree, above: &mut Path) {
        match tree {
            syn::UseTree::Path(path) => {
                above.push(path.ident.to_string());
                self.import(&path.tree, above);
                let _last = above.pop();
            }
            syn::UseTree::Group(group) => group.items.iter().for_each(|item| self.import(item, above)),
            syn::UseTree::Name(name) => self.bind(above, &name.ident.to_string(), &name.ident.to_string()),
            syn::UseTree::Rename(name) => self.bind(above, &name.ident.to_string(), &name.rename.to_string()),
            syn::UseTree::Glob(_) => {
                if let Some(path) = self.absolute(above) {
                    self.module.globs.push(path.clone());
                    self.module.uses.push(path);
                }
            }
        }
    }

    fn bind(&mut self, above: &[String], name: &str, called: &str) {
        let path = if name == "self" { above.to_vec() } else { [above, &[name.to_owned()]].concat() };
        let called =
            if called == "self" { above.last().cloned().unwrap_or_default() } else { called.to_owned() };
        if let Some(path) = self.absolute(&path) {
            let _before = self.module.names.insert(called, path.clone());
            self.module.uses.push(path);
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let name = match item {
            syn::Item::Mod(module) if is_test(&module.attrs) => return,
            syn::Item::Fn(function) if is_test(&function.attrs) => return,
            syn::Item::Const(item) => Some(&item.ident),
            syn::Item::Enum(item) => Some(&item.ident),
            syn::Item::Fn(item) => Some(&item.sig.ident),
            syn::Item::Static(item) => Some(&item.ident),
            syn::Item::Struct(item) => Some(&item.ident),
            syn::Item::Trait(item) => Some(&item.ident),
            syn::Item::Type(item) => Some(&item.ident),
            _ => None,
        };
        self.module.items.extend(name.map(ToString::to_string));
        visit::visit_item(self, item);
    }

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if module.content.is_some() {
            self.here.push(module.ident.to_string());
            visit::visit_item_mod(self, module);
            let _inline = self.here.pop();
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.import(&item.tree, &mut Vec::new());
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Path = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if parts.len() > 1 {
            self.module.uses.extend(self.absolute(&parts));
        }
        visit::visit_path(self, path);
    }
}

/// The module in which what a path names is defined.
fn resolve(modules: &BTreeMap<Path, Module>, path: &[String], depth: usize) -> Path {
    let mut at = Path::new();
    for (index, part) in path.iter().enumerate() {
        let child = [at.as_slice(), core::slice::from_ref(part)].concat();
        if modules.contains_key(&child) {
            at = child;
            continue;
        }
        let rest = path.get(index + 1..).unwrap_or_default();
        let Some(module) = modules.get(&at) else { break };
        if module.items.contains(part) || depth > 8 {
            break;
        }
        if let Some(target) = module.names.get(part) {
            return resolve(modules, &[target, rest].concat(), depth + 1);
        }
        let through = |glob: &Path| modules.get(glob).is_some_and(|module| module.items.contains(part));
        if let Some(glob) = module.globs.iter().find(|glob| through(glob)) {
            return glob.clone();
        }
        break;
    }
    at
}

fn circles_in(folder: &[String], arrows: &BTreeSet<(Path, Path)>) -> Vec<Vec<String>> {
    let child = |path: &Path| path.strip_prefix(folder).and_then(|rest| rest.first().cloned());
    let mut reach: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (from, to) in arrows {
        if let (Some(from), Some(to)) = (child(from), child(to))
            && from != to
        {
            let _new = reach.entry(from).or_default().insert(to);
        }
    }
    loop {
        let mut grown = false;
        for from in reach.keys().cloned().collect::<Vec<_>>() {
            let further: BTreeSet<String> =
                reach[&from].iter().filter_map(|to| reach.get(to)).flatten().cloned().collect();
            let known = reach.get_mut(&from).unwrap();
            let before = known.len();
            known.extend(further);
            grown |= known.len() > before;
        }
        if !grown {
            break;
        }
    }
    let mut circles = BTreeSet::new();
    for (from, reached) in reach.iter().filter(|(from, reached)| reached.contains(*from)) {
        let back = |to: &&String| reach.get(*to).is_some_and(|reached| reached.contains(from));
        let name = |member: &String| [folder, core::slice::from_ref(member)].concat().join("::");
        let _new = circles.insert(reached.iter().filter(back).map(name).collect::<Vec<_>>());
    }
    circles.into_iter().collect()
}

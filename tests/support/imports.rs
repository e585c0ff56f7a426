//! Which file of `src` imports names from which. It parses the modules of a crate and follows every path in them,
//! through re-exports, to the file that defines the name.
//!
//! Tests inside `src` and documentation are left out. Methods are not followed, since no path names them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use syn::visit::{self, Visit};

/// An import of one file from another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Import {
    /// The file that uses the name, relative to the crate's `src`.
    pub from: String,
    /// The file that defines it.
    pub to: String,
    /// The line of `from` on which it stands.
    pub line: usize,
    /// The path as written.
    pub path: String,
}

/// A crate, parsed.
pub struct Crate {
    modules: Vec<Module>,
}

#[derive(Default)]
struct Module {
    file: String,
    parent: Option<usize>,
    children: HashMap<String, usize>,
    items: BTreeSet<String>,
    /// Names that `use` imports, with their full paths.
    aliases: HashMap<String, Vec<String>>,
    /// Paths that end in `*`.
    globs: Vec<Vec<String>>,
    /// Every path that is written in the module.
    mentions: Vec<Mention>,
}

struct Mention {
    path: Vec<String>,
    line: usize,
}

/// The target of a path.
enum Target {
    Module(usize),
    /// An item that the module defines.
    Item(usize),
}

impl Crate {
    /// Parses the crate whose root module is `root`, such as `src/lib.rs`.
    pub fn parse(root: &Path) -> Self {
        let mut parsed = Self {
            modules: Vec::new(),
        };
        let base = root.parent().expect("a file has a folder").to_owned();
        parsed.add_file(&base, root, None, &base);
        parsed
    }

    fn add_file(&mut self, base: &Path, file: &Path, parent: Option<usize>, dir: &Path) -> usize {
        let text = std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{file:?}: {e}"));
        let syntax = syn::parse_file(&text).unwrap_or_else(|e| panic!("{file:?}: {e}"));
        let name = file.strip_prefix(base).expect("below src");
        let name = name.to_string_lossy().replace('\\', "/");
        self.add_module(base, &name, syntax.items, parent, dir)
    }

    fn add_module(
        &mut self,
        base: &Path,
        file: &str,
        items: Vec<syn::Item>,
        parent: Option<usize>,
        dir: &Path,
    ) -> usize {
        let id = self.modules.len();
        self.modules.push(Module {
            file: file.to_owned(),
            parent,
            ..Module::default()
        });
        for item in items
            .into_iter()
            .filter(|item| !is_for_tests(attributes(item)))
        {
            match item {
                syn::Item::Mod(module) => {
                    let name = module.ident.to_string();
                    let child = match module.content {
                        Some((_, items)) => {
                            self.add_module(base, file, items, Some(id), &dir.join(&name))
                        }
                        None => {
                            let file = file_of(dir, &name);
                            self.add_file(base, &file, Some(id), &dir.join(&name))
                        }
                    };
                    self.modules[id].children.insert(name, child);
                }
                item => {
                    let module = &mut self.modules[id];
                    if let syn::Item::Use(item) = &item {
                        module.bring_in(&item.tree, &mut Vec::new());
                    }
                    module.items.extend(name_of(&item));
                    Mentions(&mut module.mentions).visit_item(&item);
                }
            }
        }
        id
    }

    /// Every import between two files, once for each place where it is written.
    pub fn imports(&self) -> BTreeSet<Import> {
        let mut imports = BTreeSet::new();
        for (id, module) in self.modules.iter().enumerate() {
            for mention in &module.mentions {
                let Some(Target::Item(definer)) = self.follow(id, &mention.path, 0) else {
                    continue;
                };
                let to = &self.modules[definer].file;
                if *to != module.file {
                    imports.insert(Import {
                        from: module.file.clone(),
                        to: to.clone(),
                        line: mention.line,
                        path: mention.path.join("::"),
                    });
                }
            }
        }
        imports
    }

    /// The places where a path begins with the name of a library, as `file:line`.
    pub fn mentions_of(&self, library: &str) -> Vec<String> {
        let begins = |mention: &&Mention| mention.path.len() > 1 && mention.path[0] == library;
        let mentions = self.modules.iter().flat_map(|module| {
            let of_it = module.mentions.iter().filter(begins);
            of_it.map(|mention| format!("{}:{}", module.file, mention.line))
        });
        mentions.collect()
    }

    /// The target of a path in a module, if it stays in the crate.
    fn follow(&self, module: usize, path: &[String], depth: usize) -> Option<Target> {
        /// The most re-exports of re-exports that are followed.
        const DEEPEST: usize = 32;
        if depth > DEEPEST {
            return None;
        }
        let (first, mut rest) = path.split_first()?;
        let mut at = match first.as_str() {
            "crate" => 0,
            "self" => module,
            "super" => self.modules[module].parent?,
            name => match self.lookup(module, name, depth)? {
                Target::Module(module) => module,
                item => return Some(item),
            },
        };
        while let Some((name, after)) = rest.split_first() {
            at = match name.as_str() {
                "super" => self.modules[at].parent?,
                "self" => at,
                name => match self.lookup(at, name, depth)? {
                    Target::Module(module) => module,
                    item => return Some(item),
                },
            };
            rest = after;
        }
        Some(Target::Module(at))
    }

    fn lookup(&self, module: usize, name: &str, depth: usize) -> Option<Target> {
        let here = &self.modules[module];
        let item = here.items.contains(name);
        let through = |path: &Vec<String>| self.follow(module, path, depth + 1);
        // A module and a function may have the same name, such as `gemm`; `use` then names both.
        if let Some(child) = here.children.get(name) {
            let same = here.aliases.get(name).and_then(through);
            return Some(match same {
                Some(Target::Item(definer)) if definer != *child || item => Target::Item(definer),
                _ => Target::Module(*child),
            });
        }
        if item {
            return Some(Target::Item(module));
        }
        if let Some(path) = here.aliases.get(name) {
            return through(path);
        }
        here.globs
            .iter()
            .find_map(|glob| match self.follow(module, glob, depth + 1)? {
                Target::Module(from) if from != module => self.lookup(from, name, depth + 1),
                _ => None,
            })
    }
}

impl Module {
    fn bring_in(&mut self, tree: &syn::UseTree, prefix: &mut Vec<String>) {
        match tree {
            syn::UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.bring_in(&path.tree, prefix);
                prefix.pop();
            }
            syn::UseTree::Name(name) => {
                let (ident, line) = (name.ident.to_string(), name.ident.span().start().line);
                self.bring(ident.clone(), &ident, prefix, line);
            }
            syn::UseTree::Rename(rename) => {
                let line = rename.ident.span().start().line;
                self.bring(
                    rename.rename.to_string(),
                    &rename.ident.to_string(),
                    prefix,
                    line,
                );
            }
            syn::UseTree::Glob(glob) => {
                self.mentions.push(Mention {
                    path: prefix.clone(),
                    line: glob.star_token.spans[0].start().line,
                });
                self.globs.push(prefix.clone());
            }
            syn::UseTree::Group(group) => {
                group
                    .items
                    .iter()
                    .for_each(|tree| self.bring_in(tree, prefix));
            }
        }
    }

    fn bring(&mut self, alias: String, name: &str, prefix: &[String], line: usize) {
        let mut path = prefix.to_vec();
        let alias = if name == "self" {
            prefix.last().cloned().unwrap_or(alias)
        } else {
            path.push(name.to_owned());
            alias
        };
        self.mentions.push(Mention {
            path: path.clone(),
            line,
        });
        self.aliases.insert(alias, path);
    }
}

/// Collects the paths that are written in an item.
struct Mentions<'a>(&'a mut Vec<Mention>);

impl<'ast> Visit<'ast> for Mentions<'_> {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        if let Some(first) = path.segments.first() {
            let segments = path
                .segments
                .iter()
                .map(|segment| segment.ident.to_string());
            self.0.push(Mention {
                path: segments.collect(),
                line: first.ident.span().start().line,
            });
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.visit_path(&call.path);
        self.visit_tokens(call.tokens.clone());
    }

    fn visit_item_macro(&mut self, item: &'ast syn::ItemMacro) {
        self.visit_tokens(item.mac.tokens.clone());
    }

    fn visit_item_use(&mut self, _: &'ast syn::ItemUse) {}

    // Documentation may name any item.
    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}
}

impl Mentions<'_> {
    /// Paths in the argument of a macro, which is not parsed.
    fn visit_tokens(&mut self, tokens: proc_macro2::TokenStream) {
        use proc_macro2::TokenTree;
        let mut path: Vec<String> = Vec::new();
        let (mut colons, mut line) = (0, 0);
        let mut found = Vec::new();
        for token in tokens {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        found.push((std::mem::take(&mut path), line));
                        line = ident.span().start().line;
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Group(group) => {
                    found.push((std::mem::take(&mut path), line));
                    colons = 0;
                    self.visit_tokens(group.stream());
                }
                TokenTree::Punct(punct) if punct.as_char() == '$' => {}
                _ => {
                    found.push((std::mem::take(&mut path), line));
                    colons = 0;
                }
            }
        }
        found.push((path, line));
        let paths = found.into_iter().filter(|(path, _)| !path.is_empty());
        self.0
            .extend(paths.map(|(path, line)| Mention { path, line }));
    }
}

fn file_of(dir: &Path, name: &str) -> PathBuf {
    let flat = dir.join(format!("{name}.rs"));
    if flat.exists() {
        return flat;
    }
    dir.join(name).join("mod.rs")
}

fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let syn::Meta::List(list) = &attribute.meta else {
            return false;
        };
        let tokens = list.tokens.to_string();
        let mut words = tokens.split(|c: char| !c.is_alphanumeric() && c != '_');
        list.path.is_ident("cfg") && words.any(|word| word == "test" || word == "doctest")
    })
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    use syn::Item::*;
    match item {
        Const(item) => &item.attrs,
        Enum(item) => &item.attrs,
        Fn(item) => &item.attrs,
        Impl(item) => &item.attrs,
        Macro(item) => &item.attrs,
        Mod(item) => &item.attrs,
        Static(item) => &item.attrs,
        Struct(item) => &item.attrs,
        Trait(item) => &item.attrs,
        Type(item) => &item.attrs,
        Union(item) => &item.attrs,
        Use(item) => &item.attrs,
        _ => &[],
    }
}

fn name_of(item: &syn::Item) -> Option<String> {
    use syn::Item::*;
    let ident = match item {
        Const(item) => &item.ident,
        Enum(item) => &item.ident,
        Fn(item) => &item.sig.ident,
        Macro(item) => item.ident.as_ref()?,
        Static(item) => &item.ident,
        Struct(item) => &item.ident,
        Trait(item) => &item.ident,
        Type(item) => &item.ident,
        Union(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}

/// The largest sets of files in which each takes a name from another, directly or not; those of one file are left out.
/// The largest comes first.
pub fn circles(imports: &BTreeSet<Import>) -> Vec<Vec<&str>> {
    let mut arrows: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for import in imports {
        arrows.entry(&import.from).or_default().insert(&import.to);
        arrows.entry(&import.to).or_default();
    }
    let reached = |from: &str| {
        let mut seen = BTreeSet::new();
        let mut to_do: Vec<&str> = arrows[from].iter().copied().collect();
        while let Some(file) = to_do.pop() {
            if seen.insert(file) {
                to_do.extend(&arrows[file]);
            }
        }
        seen
    };
    let reached: BTreeMap<&str, BTreeSet<&str>> = arrows.keys().map(|f| (*f, reached(f))).collect();
    let mut placed = BTreeSet::new();
    let mut circles = Vec::new();
    for (file, there) in &reached {
        let back = there.iter().filter(|other| reached[*other].contains(file));
        let circle: Vec<&str> = back.copied().collect();
        if circle.len() > 1 && !placed.contains(file) {
            placed.extend(circle.iter().copied());
            circles.push(circle);
        }
    }
    circles.sort_by_key(|circle| std::cmp::Reverse(circle.len()));
    circles
}

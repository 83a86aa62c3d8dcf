//! The structure, kept by a test: floors, purity, module docs, banned words (src/lib.rs tells the why).
//!
//! Every file of `src` is parsed; imports and paths are followed, whether written in a `use` or in line. What stands
//! in a `#[cfg(test)]` module is left out.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};

/// Room → floor. An arrow goes to a lower floor, or stays in its room.
const FLOORS: &[(&str, u8)] = &[
    ("main", 6),
    ("cli", 5),
    ("config", 4),
    ("edge", 3),
    ("sync", 3),
    ("backoffice", 3),
    ("admin", 3),
    ("console", 3),
    ("state", 2),
    ("cake", 2),
    ("ledger", 2),
    ("clicklog", 2),
    ("routing", 1),
    ("lookup", 1),
    ("click_id", 1),
    ("types", 0),
];

/// No async, no I/O, no clock, no random generator, no logging, no serde.
const PURE: &[&str] = &["types", "routing", "lookup", "click_id"];

/// First segments of paths that a pure room may not name.
const IMPURE_CRATES: &[&str] = &[
    "tokio",
    "hyper",
    "axum",
    "rand",
    "rand_xoshiro",
    "tracing",
    "serde",
    "serde_json",
    "rusqlite",
    "redis",
];

/// Paths into std that a pure room may not name.
const IMPURE_STD: &[&str] = &["fs", "io", "process", "thread", "env", "time"];

/// Where serde may be: the edges at which text becomes values.
const SERDE: &[&str] = &[
    "cake/",
    "config/raw.rs",
    "backoffice/",
    "edge/conversion/body.rs",
    "clicklog/read.rs",
    "ledger/leases.rs",
    "ledger/message.rs",
    "admin/",
    "console/",
    "sync/cap_gauges.rs",
    "sync/cap_keeper.rs",
    "sync/conversions.rs",
    "sync/last_good.rs",
    "sync/routing_file.rs",
    "cli/explain.rs",
    "cli/api.rs",
    "cli/cap.rs",
    "cli/link.rs",
    "cli/offer.rs",
    "cli/rule.rs",
    "cli/geo_target.rs",
    "cli/when.rs",
    "cli/network_file.rs",
    "cli/export.rs",
    "cli/import.rs",
    "cli/key.rs",
    "cli/click_id.rs",
    "cli/report/click.rs",
    "cli/report/csv.rs",
    "cli/report/json.rs",
    "cli/report/rows.rs",
];

/// Names that say nothing.
const BANNED_NAMES: &[&str] = &["util", "utils", "helper", "helpers", "manager", "common", "misc"];

#[test]
fn arrows_point_down() {
    let mut wrong = Vec::new();
    for file in sources() {
        let room = file.room();
        for target in file.crate_targets() {
            let (Some(from), Some(to)) = (floor(room), floor(&target)) else {
                wrong.push(format!(
                    "{}: `{room}` or `{target}` is on no floor; add it to FLOORS and lib.rs",
                    file.name
                ));
                continue;
            };
            if target != room && to >= from {
                wrong.push(format!("{}: {room} (floor {from}) → {target} (floor {to})", file.name));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that do not point down:\n{}", wrong.join("\n"));
}

#[test]
fn pure_rooms_are_pure() {
    let mut wrong = Vec::new();
    for file in sources().into_iter().filter(|file| PURE.contains(&file.room())) {
        for path in &file.found.paths {
            let first = path.first().map(String::as_str).unwrap_or_default();
            let second = path.get(1).map(String::as_str).unwrap_or_default();
            let impure = IMPURE_CRATES.contains(&first) || (first == "std" && IMPURE_STD.contains(&second));
            if impure {
                wrong.push(format!("{}: {}", file.name, path.join("::")));
            }
            let own_module = file.found.names.iter().any(|name| name == first);
            let foreign = !own_module && !["std", "crate", "super", "self", "core"].contains(&first);
            if file.room() == "types" && foreign && file.found.imports.contains(path) {
                wrong.push(format!("{}: types use std only, not {}", file.name, path.join("::")));
            }
        }
        if file.found.has_async {
            wrong.push(format!("{}: async", file.name));
        }
    }
    assert!(wrong.is_empty(), "pure rooms that are not:\n{}", wrong.join("\n"));
}

#[test]
fn serde_stays_at_the_edges() {
    let names_serde =
        |file: &Source| file.found.paths.iter().any(|path| path[0] == "serde" || path[0] == "serde_json");
    let wrong: Vec<String> = sources()
        .iter()
        .filter(|file| names_serde(file) && !SERDE.iter().any(|place| file.name.starts_with(place)))
        .map(|file| file.name.clone())
        .collect();
    assert!(wrong.is_empty(), "serde in {wrong:?}");
}

#[test]
fn one_file_names_arc_swap() {
    let naming: Vec<String> = sources()
        .iter()
        .filter(|file| file.found.paths.iter().any(|path| path[0] == "arc_swap"))
        .map(|file| file.name.clone())
        .collect();
    assert_eq!(naming, ["state/live.rs"]);
}

/// Where a secret leaves its type: to be sent, to be written into a file of its own, to be shown once to whoever made it.
#[test]
fn a_key_is_compared_in_constant_time_or_not_at_all() {
    let key = sources().into_iter().find(|file| file.name == "cake/key.rs").unwrap();
    // Neither `==` nor `{}` is there for it.
    assert!(key.text.contains("#[derive(Clone)]\npub struct Key(String);"));
    assert!(key.text.contains("self.0.as_bytes().ct_eq(candidate).into()"));
    let revealing: Vec<String> =
        sources().into_iter().filter(|file| file.text.contains(".reveal()")).map(|file| file.name).collect();
    assert_eq!(
        revealing,
        [
            "backoffice/keys.rs",
            "cake/calls.rs",
            "cake/client.rs",
            "cake/key.rs",
            "cli/key.rs",
            "cli/node.rs",
            "cli/source.rs"
        ]
    );
}

#[test]
fn every_file_says_what_it_is() {
    let wrong: Vec<String> =
        sources().iter().filter(|file| !file.text.starts_with("//!")).map(|file| file.name.clone()).collect();
    assert!(wrong.is_empty(), "files without `//!`: {wrong:?}");
}

#[test]
fn names_say_something() {
    let mut wrong = Vec::new();
    for file in sources() {
        let stem = Path::new(&file.name).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        for name in file.found.names.iter().map(String::as_str).chain([stem]) {
            let banned = BANNED_NAMES.contains(&name) || name.starts_with("get_") || name.ends_with("_inner");
            if banned {
                wrong.push(format!("{}: {name}", file.name));
            }
        }
        for import in file.found.imports.iter().filter(|import| import.last().is_some_and(|last| last == "*"))
        {
            wrong.push(format!("{}: glob import {}", file.name, import.join("::")));
        }
    }
    assert!(wrong.is_empty(), "banned names:\n{}", wrong.join("\n"));
}

#[test]
fn main_is_short() {
    let main = fs::read_to_string(root().join("src/main.rs")).unwrap();
    assert!(main.lines().count() <= 40);
}

#[test]
fn the_rules_bite() {
    let source = Source::parse(
        "routing/sample.rs",
        "use crate::state::{live::Live, Metrics};\nasync fn f() { tokio::spawn(g()); }\nuse std::fs::*;\n#[cfg(test)] mod tests { use crate::cli; }",
    );
    assert_eq!(source.room(), "routing");
    assert_eq!(source.crate_targets(), ["state", "state"]);
    assert!(source.found.has_async);
    assert!(source.found.paths.iter().any(|path| path[0] == "tokio"));
    assert!(source.found.imports.iter().any(|path| path.join("::") == "std::fs::*"));
    assert!(!source.crate_targets().contains(&"cli".to_owned()));
}

/// One file of `src`, parsed.
struct Source {
    /// Relative to `src`, with `/`.
    name: String,
    text: String,
    found: Found,
}

/// What a file names.
#[derive(Default)]
struct Found {
    /// Every path of two segments or more, and every import.
    paths: Vec<Vec<String>>,
    imports: Vec<Vec<String>>,
    /// Functions, types and modules.
    names: Vec<String>,
    has_async: bool,
}

impl Source {
    fn parse(name: &str, text: &str) -> Self {
        let file = syn::parse_file(text).unwrap_or_else(|error| panic!("{name} does not parse: {error}"));
        let mut found = Found::default();
        found.visit_file(&file);
        Self { name: name.to_owned(), text: text.to_owned(), found }
    }

    /// The first directory, or the file itself.
    fn room(&self) -> &str {
        let first = self.name.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// The rooms that the file names through `crate::`, or `smartlink::` from main.
    fn crate_targets(&self) -> Vec<String> {
        self.found
            .paths
            .iter()
            .filter(|path| path[0] == "crate" || path[0] == "smartlink")
            .filter_map(|path| path.get(1).cloned())
            .collect()
    }
}

impl<'ast> Visit<'ast> for Found {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        let is_test = module.attrs.iter().any(|attribute| {
            attribute.path().is_ident("cfg")
                && attribute.parse_args::<syn::Ident>().is_ok_and(|argument| argument == "test")
        });
        if !is_test {
            self.names.push(module.ident.to_string());
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        flatten(&item.tree, &mut Vec::new(), &mut self.imports);
        flatten(&item.tree, &mut Vec::new(), &mut self.paths);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 {
            self.paths.push(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        visit::visit_path(self, path);
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        self.names.push(signature.ident.to_string());
        self.has_async |= signature.asyncness.is_some();
        visit::visit_signature(self, signature);
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.names.push(item.ident.to_string().to_lowercase());
        visit::visit_item_struct(self, item);
    }
}

fn flatten(tree: &syn::UseTree, prefix: &mut Vec<String>, out: &mut Vec<Vec<String>>) {
    match tree {
        syn::UseTree::Path(path) => {
            prefix.push(path.ident.to_string());
            flatten(&path.tree, prefix, out);
            prefix.pop();
        }
        syn::UseTree::Name(name) => out.push(joined(prefix, &name.ident.to_string())),
        syn::UseTree::Rename(rename) => out.push(joined(prefix, &rename.ident.to_string())),
        syn::UseTree::Glob(_) => out.push(joined(prefix, "*")),
        syn::UseTree::Group(group) => {
            for tree in &group.items {
                flatten(tree, prefix, out);
            }
        }
    }
}

fn joined(prefix: &[String], last: &str) -> Vec<String> {
    prefix.iter().cloned().chain([last.to_owned()]).collect()
}

fn floor(room: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == room).map(|(_, floor)| *floor)
}

/// Every file of `src` but lib.rs, which only declares the rooms. Asserts that the tree was visited.
fn sources() -> Vec<Source> {
    let src = root().join("src");
    let mut files = Vec::new();
    collect(&src, &mut files);
    let sources: Vec<Source> = files
        .iter()
        .map(|path| {
            let name = path.strip_prefix(&src).unwrap().to_string_lossy().replace('\\', "/");
            Source::parse(&name, &fs::read_to_string(path).unwrap())
        })
        .filter(|source| source.name != "lib.rs")
        .collect();
    let mut per_room: BTreeMap<&str, usize> = BTreeMap::new();
    for source in &sources {
        *per_room.entry(source.room()).or_default() += 1;
    }
    for (room, _) in FLOORS {
        assert!(per_room.contains_key(room), "no file of room {room} was visited; found {per_room:?}");
    }
    sources
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

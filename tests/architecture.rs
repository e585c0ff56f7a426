//! The house stands on floors, and imports point down. The order of the floors is the table below.

#[path = "support/imports.rs"]
mod imports;

use imports::{Crate, Import, circles};
use std::collections::BTreeSet;
use std::path::Path;

/// The rooms of `src`, from the ground up. A room takes names from rooms that are listed before it, and from no others.
const FLOORS: &[&str] = &[
    "error",
    "element",
    "hash",
    "units",
    "panics",
    "files",
    "simd",
    "device",
    "array",
    "checkpoint",
    "kernel",
    "cost",
    "plan",
    "execute",
    "recovery",
    "verify",
    "runtime",
    "kernels",
    "catalog",
    "sim",
    "lib",
];

/// What a room must not know although it lies lower, and why.
const STRANGERS: &[(&str, &[&str], &str)] = &[
    (
        "kernels",
        &[
            "cost",
            "plan",
            "execute",
            "recovery",
            "verify",
            "runtime",
            "checkpoint",
        ],
        "a kernel is the same whoever runs it, and wherever",
    ),
    (
        "sim",
        &[
            "runtime", "execute", "recovery", "verify", "kernels", "catalog",
        ],
        "a simulated machine has no devices and knows no kernel by name",
    ),
    (
        "plan",
        &["checkpoint", "files"],
        "planning is pure: it reads and writes nothing",
    ),
];

/// Which folders may name a library.
const LIBRARIES: &[(&str, &[&str])] = &[
    ("wgpu", &["device/gpu"]),
    ("naga", &["device/gpu", "kernel/wgsl"]),
    ("rayon", &["device", "kernels", "catalog"]),
];

/// The most files that may take names from each other in a circle.
const LARGEST_CIRCLE: usize = 3;

fn library() -> Crate {
    Crate::parse(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs"))
}

fn command() -> Crate {
    Crate::parse(&Path::new(env!("CARGO_MANIFEST_DIR")).join("cli/src/main.rs"))
}

/// The room that a file belongs to: `plan` for `plan/split.rs`, `error` for `error.rs`.
fn room(file: &str) -> &str {
    let first = file.split('/').next().unwrap_or(file);
    first.trim_end_matches(".rs")
}

fn floor(file: &str) -> usize {
    let place = FLOORS.iter().position(|name| *name == room(file));
    place.unwrap_or_else(|| panic!("src/{file}: its room has no floor; add it to FLOORS"))
}

fn described(imports: &[&Import]) -> String {
    let line = |import: &&Import| {
        format!(
            "\n  src/{}:{} takes `{}` from src/{}",
            import.from, import.line, import.path, import.to
        )
    };
    imports.iter().map(line).collect()
}

#[test]
fn imports_point_down() {
    let imports = library().imports();
    assert!(imports.len() > 1000, "the imports were read");
    let upward: Vec<_> = imports
        .iter()
        .filter(|import| floor(&import.from) < floor(&import.to))
        .collect();
    assert!(upward.is_empty(), "{}", described(&upward));
}

#[test]
fn every_floor_is_a_room() {
    let imports = library().imports();
    let ends = |import: &Import| [import.from.clone(), import.to.clone()];
    let files: BTreeSet<String> = imports.iter().flat_map(ends).collect();
    for name in FLOORS {
        let is_there = files.iter().any(|file| room(file) == *name);
        assert!(is_there, "{name}: there is no such room");
    }
}

#[test]
fn rooms_do_not_know_strangers() {
    let imports = library().imports();
    for (of, strangers, why) in STRANGERS {
        let known: Vec<_> = imports
            .iter()
            .filter(|i| room(&i.from) == *of && strangers.contains(&room(&i.to)))
            .collect();
        assert!(known.is_empty(), "{of}: {why}{}", described(&known));
    }
}

#[test]
fn libraries_are_named_where_they_belong() {
    let library = library();
    for (name, folders) in LIBRARIES {
        let outside: Vec<_> = library
            .mentions_of(name)
            .into_iter()
            .filter(|place| !folders.iter().any(|folder| place.starts_with(folder)))
            .collect();
        assert!(
            outside.is_empty(),
            "{name} is named outside {folders:?}: {outside:?}"
        );
        assert!(!library.mentions_of(name).is_empty(), "{name} is used");
    }
}

#[test]
fn no_large_circle() {
    for (name, parsed) in [("src", library()), ("cli/src", command())] {
        let imports = parsed.imports();
        for circle in circles(&imports) {
            let inside: Vec<_> = imports
                .iter()
                .filter(|i| circle.contains(&&*i.from) && circle.contains(&&*i.to))
                .collect();
            assert!(
                circle.len() <= LARGEST_CIRCLE,
                "{name}: {} files take names from each other: {}{}",
                circle.len(),
                circle.join(" "),
                described(&inside)
            );
        }
    }
}

/// The reader itself, on a crate whose imports are known.
mod the_reader {
    use super::*;
    use std::fs;

    /// The imports of a crate of these files, as `from -> to`.
    fn imports(files: &[(&str, &str)]) -> BTreeSet<(String, String)> {
        let dir = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, text).expect("a file");
        }
        let imports = Crate::parse(&dir.path().join("lib.rs")).imports();
        imports.into_iter().map(|i| (i.from, i.to)).collect()
    }

    fn arrows(arrows: &[(&str, &str)]) -> BTreeSet<(String, String)> {
        let owned = |(from, to): &(&str, &str)| (from.to_string(), to.to_string());
        arrows.iter().map(owned).collect()
    }

    #[test]
    fn follows_re_exports_globs_and_aliases_to_the_definition() {
        let found = imports(&[
            ("lib.rs", "mod a; mod b; mod c; mod d;"),
            (
                "a/mod.rs",
                "mod inner; pub use inner::Thing as Renamed; pub use inner::*;",
            ),
            ("a/inner.rs", "pub struct Thing; pub fn other() {}"),
            ("b.rs", "use crate::a::Renamed; fn f(_: Renamed) {}"),
            ("c.rs", "use crate::a; fn f() { a::other() }"),
            ("d.rs", "fn f() { assert!(matches!(crate::a::Thing, _)) }"),
        ]);
        let expected = [
            ("a/mod.rs", "a/inner.rs"),
            ("b.rs", "a/inner.rs"),
            ("c.rs", "a/inner.rs"),
            ("d.rs", "a/inner.rs"),
        ];
        assert_eq!(found, arrows(&expected));
    }

    #[test]
    fn leaves_out_tests_and_documentation() {
        let found = imports(&[
            ("lib.rs", "mod a; mod b;"),
            (
                "a.rs",
                "/// [`X`](crate::b::X)\npub struct A;\n#[cfg(test)] mod tests { use crate::b::X; }",
            ),
            ("b.rs", "use super::a::A; pub struct X(A);"),
        ]);
        assert_eq!(found, arrows(&[("b.rs", "a.rs")]));
    }

    #[test]
    fn finds_circles() {
        let import = |from: &str, to: &str| Import {
            from: from.into(),
            to: to.into(),
            line: 1,
            path: String::new(),
        };
        let pairs = [
            ("a", "b"),
            ("b", "c"),
            ("c", "a"),
            ("c", "d"),
            ("e", "f"),
            ("f", "e"),
        ];
        let imports = pairs.iter().map(|(from, to)| import(from, to)).collect();
        assert_eq!(circles(&imports), [vec!["a", "b", "c"], vec!["e", "f"]]);
    }
}

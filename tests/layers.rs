//! Imports only point down: each module of the library has a layer, and names
//! only modules of lower ones.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;

/// The layers, as `docs/design.md` lists them.
const LAYERS: [(&str, i8); 18] = [
    ("sync", -1),
    ("hash", 0),
    ("time", 0),
    ("verdict", 0),
    ("stats", 0),
    ("mode", 0),
    ("memory", 0),
    ("map", 0),
    ("table", 1),
    ("filter", 1),
    ("confirm", 1),
    ("shard", 2),
    ("dedup", 3),
    ("claim", 4),
    ("snapshot", 4),
    ("stream", 5),
    ("http", 5),
    ("bin", 6),
];

fn layer(module: &str) -> Option<i8> {
    LAYERS.iter().find(|(name, _)| *name == module).map(|(_, layer)| *layer)
}

/// One source file as a module: `["dedup", "builder"]`.
struct Source {
    path: Vec<String>,
    text: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push(Source::read(&root, &path));
            }
        }
    }
    sources
}

impl Source {
    fn read(root: &Path, file: &Path) -> Self {
        let name = file.strip_prefix(root).unwrap().with_extension("");
        let name = if name.ends_with("mod") { name.parent().unwrap().into() } else { name };
        Self { path: names(&name), text: without_tests(&fs::read_to_string(file).unwrap()) }
    }

    /// The modules of the crate's root that this one names.
    fn imports(&self) -> Vec<String> {
        let mut imports = Vec::new();
        for (start, _) in self.text.match_indices("crate::") {
            if !self.text[..start].ends_with('$') {
                imports.extend(first_segments(&self.text[start + "crate::".len()..]));
            }
        }
        // As many `super`s as the module is deep lead to the crate's root.
        let to_root = "super::".repeat(self.path.len());
        for (start, _) in self.text.match_indices(&to_root) {
            imports.extend(first_segments(&self.text[start + to_root.len()..]));
        }
        imports
    }
}

fn names(path: &Path) -> Vec<String> {
    path.iter().map(|name| name.to_str().unwrap().to_owned()).collect()
}

/// The code without comments, and without the test module that ends a file: a
/// test may look wherever it likes.
fn without_tests(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let is_code = |line: &&str| !line.trim_start().starts_with("//");
    code.lines().filter(is_code).collect::<Vec<_>>().join("\n")
}

/// What a path begins with: one name, or those of a braced list.
fn first_segments(path: &str) -> Vec<String> {
    let Some(list) = path.strip_prefix('{') else { return vec![identifier(path)] };
    let mut depth = 0;
    let mut segments = vec![identifier(list.trim_start())];
    for (index, character) in list.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => segments.push(identifier(list[index + 1..].trim_start())),
            _ => {}
        }
    }
    segments.retain(|segment| !segment.is_empty());
    segments
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// What is wrong with `module` naming `import`, if anything.
fn fault_of(module: &str, import: &str) -> Option<String> {
    let Some(own) = layer(module) else { return Some(format!("{module} has no layer")) };
    match layer(import) {
        None => Some(format!("{module} names crate::{import}: name its module, which has a layer")),
        Some(named) if module != import && named >= own => {
            Some(format!("{module} (layer {own}) names {import} (layer {named})"))
        }
        Some(_) => None,
    }
}

#[test]
fn imports_only_point_down() {
    let sources = sources();
    assert!(sources.len() > 10, "only {} source files found", sources.len());
    let mut faults: Vec<_> = sources
        .iter()
        .filter(|source| source.path != ["lib"] && source.path[0] != "bin")
        .flat_map(|source| {
            let module = &source.path[0];
            let own = fault_of(module, module);
            let imports = source.imports();
            own.into_iter()
                .chain(imports.into_iter().filter_map(move |name| fault_of(module, &name)))
        })
        .collect();
    faults.sort();
    faults.dedup();
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn the_reader_of_imports_finds_them_all() {
    let source = |path: &[&str], text: &str| Source {
        path: path.iter().map(|name| (*name).to_owned()).collect(),
        text: without_tests(text),
    };
    let text = "use crate::{hash::KeyHash, time::{Bucket, Grid}, stats};\n\
                use crate::table::Table; // and\n\
                /// [`crate::http::Layer`]\n\
                fn f(v: crate::verdict::Verdict) {}\n\
                use super::error; use super::super::claim;\n\
                #[cfg(test)]\nmod tests { use crate::stream; }\n";
    let found = source(&["shard", "pending"], text).imports();
    assert_eq!(found, ["hash", "time", "stats", "table", "verdict", "claim"]);
    assert_eq!(source(&["shard"], "use super::dedup::OnFull;").imports(), ["dedup"]);
    assert!(fault_of("shard", "dedup").is_some());
    assert!(fault_of("shard", "shard").is_none());
    assert!(fault_of("dedup", "shard").is_none());
    assert!(fault_of("hash", "time").is_some());
    assert!(fault_of("utils", "hash").is_some());
    assert!(fault_of("dedup", "Verdict").is_some());
}

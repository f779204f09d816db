//! The rules of ARCHITECTURE.md that a program can check: the direction of imports between the rooms of `src/`, who may
//! touch the world, and how long a file may grow.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// A room may use only rooms with a smaller number.
const LAYERS: &[(&str, u8)] = &[
    ("model", 0),
    ("config", 1),
    ("release", 1),
    ("plan", 1),
    ("host", 1),
    ("bucket", 1),
    ("secrets", 2),
    ("store", 2),
    ("api", 2),
    ("render", 3),
    ("apply", 3),
    ("snapshot", 3),
    ("route", 4),
    ("ops", 5),
    ("cli", 6),
];

/// Who may use what. A path that starts with the text is meant; a room that is not listed may not.
const DOORS: &[(&str, &[&str])] = &[
    ("std::fs", &["config", "host", "release", "store", "cli"]),
    ("tokio::fs", &["host", "store", "cli"]),
    ("std::net::Tcp", &["host", "api"]),
    ("std::net::Udp", &[]),
    ("std::net::ToSocketAddrs", &["host"]),
    ("std::os::unix::net", &["host"]),
    ("tokio::net", &["host", "api"]),
    ("std::process::Command", &[]),
    ("tokio::process", &[]),
    ("std::process::exit", &["cli"]),
    ("process::exit(", &["cli"]),
    ("println!", &["cli"]),
    ("eprintln!", &["cli"]),
    ("print!", &["cli"]),
    ("eprint!", &["cli"]),
    ("std::io::stdout", &["cli"]),
    ("std::io::stderr", &["cli"]),
    ("hyper_util::client", &["bucket", "api"]),
    ("rustls_native_certs", &["bucket"]),
    ("SystemTime::now", &["host", "bucket", "store", "api", "apply", "ops", "cli"]),
    ("Instant::now", &["host", "store", "api", "apply", "ops", "cli"]),
];

/// Lines of production code in one file: beyond that it holds more than one concept.
const LONGEST: usize = 400;

#[test]
fn the_rooms_keep_to_their_layers() {
    let sources = sources();
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for source in &sources {
        let Some(room) = &source.room else { continue };
        seen.insert(room.as_str());
        let Some(layer) = layer(room) else {
            wrong.push(format!("{}: the room `{room}` has no layer in tests/architecture.rs", source.name));
            continue;
        };
        for (at, line) in &source.production {
            if line.contains("crate::{") {
                wrong.push(format!("{}:{at}: imports one path per line, no `crate::{{..}}`", source.name));
            }
            if line.contains("super::super") {
                wrong.push(format!(
                    "{}:{at}: name the room, `crate::{room}::..`, in place of super::super",
                    source.name
                ));
            }
            for used in roots(line) {
                match self::layer(used) {
                    _ if used == room => {}
                    Some(lower) if lower < layer => {}
                    Some(_) => wrong.push(format!("{}:{at}: `{room}` may not use `{used}`", source.name)),
                    None => wrong.push(format!("{}:{at}: `{used}` is not a room", source.name)),
                }
            }
        }
    }
    for (room, _) in LAYERS {
        if !seen.contains(room) {
            wrong.push(format!("no file of the room `{room}` was seen"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_the_rooms_at_the_doors_touch_the_world() {
    let mut wrong = Vec::new();
    for source in sources() {
        let Some(room) = &source.room else { continue };
        for (at, line) in &source.production {
            for (path, allowed) in DOORS {
                if mentions(line, path) && !allowed.contains(&room.as_str()) {
                    wrong.push(format!("{}:{at}: `{path}` is not for `{room}`", source.name));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_file_outgrows_one_concept() {
    let long: Vec<String> = sources()
        .iter()
        .filter(|source| source.lines > LONGEST)
        .map(|source| format!("{}: {} production lines, at most {LONGEST}", source.name, source.lines))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn the_reader_of_sources_sees_what_it_should() {
    assert_eq!(roots("use crate::model::Digest; let x = crate::plan::Plan(mycrate::no)"), ["model", "plan"]);
    assert!(mentions("    println!(\"\")", "println!"));
    assert!(!mentions("    eprintln!(\"\")", "println!"));
    assert!(!mentions("use std::net::IpAddr;", "std::net::Tcp"));
    let (lines, production) =
        production("a\n// crate::cli\n#[cfg(test)]\nmod fake;\nb\n#[cfg(test)]\n#[allow(x)]\nmod tests {\nc\n}\n");
    assert_eq!(
        production,
        [(1, "a".to_owned()), (3, "#[cfg(test)]".to_owned()), (4, "mod fake;".to_owned()), (5, "b".to_owned())]
    );
    assert_eq!(lines, 5);
}

struct Source {
    /// Relative to the package.
    name: String,
    /// Folder below `src/`; none for `lib.rs` and `main.rs`.
    room: Option<String>,
    /// How many lines stand before the tests.
    lines: usize,
    /// Those that are not comments, with their numbers.
    production: Vec<(usize, String)>,
}

fn layer(room: &str) -> Option<u8> {
    LAYERS.iter().find(|(name, _)| *name == room).map(|(_, layer)| *layer)
}

/// Every Rust file below `src/` but the modules that exist for tests alone.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    walk(&root.join("src"), &mut files);
    files.sort();
    let texts: Vec<(PathBuf, String)> =
        files.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect();
    let for_tests: BTreeSet<PathBuf> = texts.iter().flat_map(|(path, text)| test_modules(path, text)).collect();
    texts
        .into_iter()
        .filter(|(path, _)| !path.ancestors().any(|part| for_tests.contains(&part.with_extension(""))))
        .map(|(path, text)| {
            let relative = path.strip_prefix(root).unwrap();
            let parts: Vec<&str> = relative.iter().map(|part| part.to_str().unwrap()).collect();
            let (lines, production) = production(&text);
            let room = match parts[..] {
                [_, "lib.rs" | "main.rs"] => None,
                [_, file] => Some(file.trim_end_matches(".rs").to_owned()),
                [_, room, ..] => Some(room.to_owned()),
                _ => panic!("{}: not below src/", path.display()),
            };
            Source { name: relative.display().to_string(), room, lines, production }
        })
        .collect()
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The modules that a file declares under `#[cfg(test)]`, as paths without their extension.
fn test_modules(path: &Path, text: &str) -> Vec<PathBuf> {
    let stem = path.file_stem().unwrap();
    let folder =
        if stem == "mod" || stem == "lib" { path.parent().unwrap().to_owned() } else { path.with_extension("") };
    let lines: Vec<&str> = text.lines().collect();
    (0..lines.len())
        .filter(|at| lines[*at].trim() == "#[cfg(test)]")
        .filter_map(|at| {
            let item = lines[at + 1..].iter().map(|line| line.trim()).find(|line| !line.starts_with("#["))?;
            let name = item.trim_start_matches("pub ").trim_start_matches("pub(crate) ").strip_prefix("mod ")?;
            Some(folder.join(name.strip_suffix(';')?))
        })
        .collect()
}

/// How many lines stand before the inline tests, and those of them that are not comments.
fn production(text: &str) -> (usize, Vec<(usize, String)>) {
    let lines: Vec<&str> = text.lines().collect();
    let end = (0..lines.len())
        .find(|at| {
            lines[*at] == "#[cfg(test)]"
                && lines[at + 1..].iter().find(|line| !line.starts_with("#[")).is_some_and(|item| item.ends_with(" {"))
        })
        .unwrap_or(lines.len());
    let code = lines[..end]
        .iter()
        .enumerate()
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(at, line)| (at + 1, (*line).to_owned()))
        .collect();
    (end, code)
}

/// The `x` of every `crate::x` in a line.
fn roots(line: &str) -> Vec<&str> {
    line.match_indices("crate::")
        .filter(|(at, _)| starts_word(line, *at))
        .map(|(at, path)| {
            let rest = &line[at + path.len()..];
            &rest[..rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())]
        })
        .filter(|root| !root.is_empty())
        .collect()
}

fn mentions(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| starts_word(line, at))
}

fn starts_word(line: &str, at: usize) -> bool {
    !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_')
}

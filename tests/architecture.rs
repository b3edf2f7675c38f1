//! Holds the sources to the map in `src/lib.rs`: who may name whom, and what only the binary does.
//!
//! The map is read from the table itself, so the two cannot disagree. Test modules may break the rules.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What the table says about one room.
#[derive(Debug)]
struct Room {
    level: u32,
    /// If given, the only rooms it may name, whatever their level.
    names_only: Option<BTreeSet<String>>,
}

#[derive(Debug, Default)]
struct Map {
    rooms: BTreeMap<String, Room>,
    /// External crate to the rooms that may name it; `the binary` is a room here.
    externals: BTreeMap<String, BTreeSet<String>>,
}

const BINARY: &str = "the binary";

/// What stands before the crates of a room.
const ONLY_ROOM: &str = "the only room that names ";

impl Map {
    /// Reads rows such as ``| 2 | [`store`] | answers (the only room that names rusqlite) |``.
    fn parse(lib: &str) -> Self {
        let mut map = Self::default();
        for line in lib.lines().filter_map(|line| line.strip_prefix("//!")) {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let owner = match cells.as_slice() {
                ["", level, room, about, ""] if level.parse::<u32>().is_ok() => {
                    let name = room.trim_matches(['[', ']', '`']).to_owned();
                    let names_only = listed(about, "(names only ");
                    map.rooms.insert(name.clone(), Room { level: level.parse().unwrap(), names_only });
                    name
                }
                _ => BINARY.to_owned(),
            };
            for (at, _) in line.match_indices(ONLY_ROOM) {
                for external in listed(&line[at..], ONLY_ROOM).unwrap_or_default() {
                    map.externals.entry(external.replace('-', "_")).or_default().insert(owner.clone());
                }
            }
        }
        map
    }

    fn may_name(&self, from: &str, to: &str) -> bool {
        let (Some(from_room), Some(to_room)) = (self.rooms.get(from), self.rooms.get(to)) else {
            return from == BINARY && self.rooms.contains_key(to);
        };
        from == to || from_room.names_only.as_ref().map_or(to_room.level < from_room.level, |only| only.contains(to))
    }
}

/// The names in a list such as `(names only store, stats and data)`, after its first words.
fn listed(text: &str, opening: &str) -> Option<BTreeSet<String>> {
    let list = text.split_once(opening)?.1.split([')', '.', ';']).next()?;
    Some(list.replace(" and ", ", ").split(", ").map(|name| name.trim().to_owned()).collect())
}

/// The source with comments and the insides of strings blanked, up to its test module.
fn code(source: &str) -> String {
    let bytes: Vec<char> = source.chars().collect();
    let (mut out, mut at) = (String::with_capacity(source.len()), 0);
    let starts = |at: usize, text: &str| text.chars().enumerate().all(|(i, c)| bytes.get(at + i) == Some(&c));
    while at < bytes.len() {
        let word_before = at > 0 && (bytes[at - 1].is_alphanumeric() || bytes[at - 1] == '_');
        let end = if starts(at, "//") {
            (at..bytes.len()).find(|&i| bytes[i] == '\n').unwrap_or(bytes.len())
        } else if starts(at, "/*") {
            (at + 2..bytes.len()).find(|&i| starts(i, "*/")).map_or(bytes.len(), |i| i + 2)
        } else if bytes[at] == 'r' && !word_before && (starts(at, "r\"") || starts(at, "r#")) {
            let hashes = bytes[at + 1..].iter().take_while(|&&c| c == '#').count();
            let closing = format!("\"{}", "#".repeat(hashes));
            if bytes.get(at + 1 + hashes) != Some(&'"') {
                at + 1
            } else {
                let close = (at + 2 + hashes..bytes.len()).find(|&i| starts(i, &closing));
                close.map_or(bytes.len(), |i| i + closing.len())
            }
        } else if bytes[at] == '"' {
            quoted_end(&bytes, at, '"')
        } else if bytes[at] == '\'' && (bytes.get(at + 1) == Some(&'\\') || bytes.get(at + 2) == Some(&'\'')) {
            quoted_end(&bytes, at, '\'')
        } else {
            at
        };
        if end == at {
            out.push(bytes[at]);
            at += 1;
        } else {
            out.extend(bytes[at..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    let tests = out.find("#[cfg(test)]\nmod ").unwrap_or(out.len());
    out.truncate(tests);
    out
}

fn quoted_end(text: &[char], open: usize, quote: char) -> usize {
    let mut at = open + 1;
    while at < text.len() && text[at] != quote {
        at += if text[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(text.len())
}

/// Words and `::`, each with its line; other signs are single tokens.
fn tokens(code: &str) -> Vec<(usize, String)> {
    let mut tokens: Vec<(usize, String)> = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let length = if word > 0 {
                word
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            tokens.push((number + 1, rest[..length].to_owned()));
            rest = rest[length..].trim_start();
        }
    }
    tokens
}

/// The first segments behind `root::`, one or a group in braces.
fn segments(tokens: &[(usize, String)], root: usize) -> Vec<&str> {
    let text = |at: usize| tokens.get(at).map_or("", |(_, text)| text.as_str());
    if text(root + 1) != "::" {
        return Vec::new();
    }
    if text(root + 2) != "{" {
        return vec![text(root + 2)];
    }
    let (mut depth, mut at, mut found) = (1, root + 3, Vec::new());
    while depth > 0 && at < tokens.len() {
        match text(at) {
            "{" => depth += 1,
            "}" => depth -= 1,
            name if depth == 1 && ["{", ","].contains(&text(at - 1)) && name != "," => found.push(name),
            _ => {}
        }
        at += 1;
    }
    found
}

/// The room of a file below `src`, and how many modules it lies below the crate root.
fn place(file: &Path) -> (String, usize) {
    let parts: Vec<&str> = file.iter().filter_map(|part| part.to_str()).collect();
    let first = parts[0].trim_end_matches(".rs");
    let depth = parts.len() - usize::from(parts[parts.len() - 1] == "mod.rs");
    match first {
        "main" | "cli" => (BINARY.to_owned(), depth),
        room => (room.to_owned(), depth),
    }
}

/// Calls and names that only the binary, or nothing, may have: tokens in a row, and the reason.
const FORBIDDEN_IN_THE_LIBRARY: &[(&[&str], &str)] = &[
    (&["println", "!"], "only the binary prints"),
    (&["eprintln", "!"], "only the binary prints"),
    (&["print", "!"], "only the binary prints"),
    (&["eprint", "!"], "only the binary prints"),
    (&["dbg", "!"], "only the binary prints"),
    (&["process", "::", "exit"], "only the binary exits"),
    (&["env", "::"], "the library does not read the environment"),
    (&["std", "::", "env"], "the library does not read the environment"),
    (&[".", "unwrap", "(", ")"], "the library returns errors"),
    (&[".", "expect", "("], "the library returns errors"),
    (&["panic", "!"], "the library returns errors"),
    (&["todo", "!"], "nothing is left open"),
    (&["unimplemented", "!"], "nothing is left open"),
];

/// Every breach of the map in one source file; `file` is relative to `src`.
fn breaches(map: &Map, file: &Path, source: &str) -> Vec<String> {
    let (room, depth) = place(file);
    let tokens = tokens(&code(source));
    let text = |at: usize| tokens.get(at).map_or("", |(_, text)| text.as_str());
    let mut found = Vec::new();
    let mut report = |at: usize, what: String| found.push(format!("src/{}:{}: {what}", file.display(), tokens[at].0));
    for at in 0..tokens.len() {
        let before = at.checked_sub(1).map_or("", text);
        let is_root = if room == BINARY { "digrap_bench" } else { "crate" } == text(at);
        for to in segments(&tokens, at).into_iter().filter(|_| is_root && before != "::") {
            if map.rooms.contains_key(to) && !map.may_name(&room, to) {
                report(at, format!("`{room}` may not name `{to}`"));
            }
        }
        let supers = (0..).take_while(|i| text(at + 2 * i) == "super").count();
        if before != "::" && supers >= depth && supers > 0 && room != BINARY {
            report(at, "`super` leaves the room; say `crate::`".to_owned());
        }
        let names_crate = before != "::" && before != "." && (text(at + 1) == "::" || before == "use");
        if let Some(owners) = map.externals.get(text(at)).filter(|owners| names_crate && !owners.contains(&room)) {
            let owners: Vec<&str> = owners.iter().map(String::as_str).collect();
            report(at, format!("`{}` is for {} only", text(at), owners.join(" and ")));
        }
        for (sequence, reason) in FORBIDDEN_IN_THE_LIBRARY {
            if room != BINARY && sequence.iter().enumerate().all(|(i, token)| text(at + i) == *token) {
                report(at, format!("`{}`: {reason}", sequence.concat()));
            }
        }
    }
    found
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    files
}

fn map() -> Map {
    Map::parse(&fs::read_to_string(root().join("src/lib.rs")).unwrap())
}

#[test]
fn sources_keep_to_the_map() {
    let (map, src) = (map(), root().join("src"));
    let mut sources = files_below(&src);
    sources.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    assert!(sources.len() > 10, "only {} source files found", sources.len());
    let breaches: Vec<String> = sources
        .iter()
        .flat_map(|path| breaches(&map, path.strip_prefix(&src).unwrap(), &fs::read_to_string(path).unwrap()))
        .collect();
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn the_map_names_every_room_and_real_crates() {
    let (map, lib) = (map(), fs::read_to_string(root().join("src/lib.rs")).unwrap());
    let declared: BTreeSet<String> =
        lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';').map(str::to_owned)).collect();
    assert_eq!(map.rooms.keys().cloned().collect::<BTreeSet<_>>(), declared);
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let dependencies: BTreeSet<String> =
        manifest.lines().filter_map(|line| Some(line.split_once(" = ")?.0.replace('-', "_"))).collect();
    for (external, owners) in &map.externals {
        assert!(dependencies.contains(external), "`{external}` (of {owners:?}) is no dependency");
    }
    for external in ["ort", "rusqlite", "statrs", "ndarray_linalg", "clap", "indicatif"] {
        assert!(map.externals.contains_key(external), "no room owns `{external}`");
    }
    for (name, room) in &map.rooms {
        for other in room.names_only.iter().flatten() {
            assert!(map.rooms.get(other).is_some_and(|other| other.level < room.level), "{name} names {other}");
        }
    }
}

#[test]
fn no_file_has_a_name_that_says_nothing() {
    let vague = ["utils", "util", "common", "helpers", "helper", "misc", "core"];
    let files = ["src", "tests", "benchmarks", "fixtures"].iter().flat_map(|folder| files_below(&root().join(folder)));
    let found: Vec<PathBuf> = files
        .filter(|path| {
            let inside = path.strip_prefix(root()).unwrap().with_extension("");
            inside.iter().any(|part| vague.iter().any(|name| part == *name))
        })
        .collect();
    assert!(found.is_empty(), "{found:?}");
}

/// Beginnings of paths that exist on one machine only, in two parts so that this file does not hold them.
const MACHINE_PATHS: &[(&str, &str)] =
    &[("/wo", "rk/"), ("/ho", "me/"), ("/ro", "ot/"), ("/Us", "ers/"), ("/opt", "/ref")];

fn machine_path(text: &str) -> Option<String> {
    let mut paths = MACHINE_PATHS.iter().map(|(start, end)| format!("{start}{end}"));
    paths.find(|path| {
        text.match_indices(path)
            .any(|(at, _)| !text[..at].ends_with(|c: char| c.is_alphanumeric() || "-_}.".contains(c)))
    })
}

#[test]
fn no_file_holds_a_path_of_one_machine() {
    let folders = ["src", "tests", "benchmarks", "fixtures", "setup", ".ci"];
    let mut files: Vec<PathBuf> = folders.iter().flat_map(|folder| files_below(&root().join(folder))).collect();
    files.extend(["Cargo.toml", "Makefile", "README.md", "deny.toml", ".gitignore"].map(|name| root().join(name)));
    // Files that are not text (weights, images) hold no paths.
    let texts = files.iter().filter_map(|path| Some((path, fs::read_to_string(path).ok()?)));
    let found: Vec<String> =
        texts.filter_map(|(path, text)| Some(format!("{}: {}", path.display(), machine_path(&text)?))).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// The rules above, on sources that break them and on look-alikes that do not.
#[test]
fn planted_breaches_are_found() {
    let map = Map::parse(
        "//! | 0 | [`error`] | errors |\n//! | 1 | [`stats`] | (the only room that names statrs) |\n\
         //! | 2 | [`store`] | answers |\n//! | 5 | [`report`] | tables (names only store and stats) |\n\
         //! The binary is the only room that names clap and indicatif.\n",
    );
    let found = |file: &str, source: &str| breaches(&map, Path::new(file), source);
    let one = |file: &str, source: &str, what: &str| {
        let found = found(file, source);
        assert_eq!(found.len(), 1, "{file}: {source}: {found:?}");
        assert!(found[0].contains(what), "{found:?}");
    };
    one("stats/mod.rs", "use crate::store::Store;", "`stats` may not name `store`");
    one("stats/mod.rs", "use crate::{error::{Error, Kind}, store};", "`stats` may not name `store`");
    one("stats/deep/er.rs", "\nfn f() -> crate::report::Table {}", "src/stats/deep/er.rs:2: ");
    one("report/mod.rs", "use crate::error::Error;", "`report` may not name `error`");
    one("stats/mod.rs", "use super::store;", "`super` leaves the room");
    one("stats/deep.rs", "use super::super::store;", "`super` leaves the room");
    one("store/mod.rs", "let x = statrs::mean();", "`statrs` is for stats only");
    one("store/mod.rs", "use indicatif as bars;", "`indicatif` is for the binary only");
    one("error.rs", "fn f() { println!(\"a\") }", "only the binary prints");
    one("error.rs", "fn f() { std::process::exit(1) }", "only the binary exits");
    one("error.rs", "fn f() { env::var(\"A\") }", "does not read the environment");
    one("error.rs", "use std::env;", "does not read the environment");
    one("error.rs", "fn f() { g()\n.unwrap() }", "src/error.rs:2: `.unwrap()`");
    one("error.rs", "fn f() { let c = '\"'; g().expect(\"a\") }", "returns errors");
    let harmless = [
        ("stats/mod.rs", "use crate::error::Error;\nuse statrs::mean;\nuse self::store::x;"),
        ("stats/deep.rs", "use super::mean;"),
        ("store/mod.rs", "// crate::report println!() .unwrap()\nlet a = \"crate::report .unwrap()\";"),
        ("store/mod.rs", "let a = r#\"x\" .unwrap() println!()\"#; let b = env!(\"CARGO_PKG_VERSION\");"),
        ("store/mod.rs", "fn f() {}\n#[cfg(test)]\nmod tests { use crate::report; fn f() { g().unwrap() } }"),
        ("cli/mod.rs", "use clap::Parser;\nuse digrap_bench::report;\nuse super::x;\nfn f() { println!() }"),
    ];
    for (file, source) in harmless {
        assert_eq!(found(file, source), [""; 0], "{file}: {source}");
    }
    assert!(machine_path(&format!("see {}{}x", "/ho", "me/")).is_some());
    assert!(machine_path("~/.cache and $HOME/work/ are anyone's").is_none());
}

/// A method is one row: what runs methods asks the row and never for a name.
#[test]
fn the_loop_knows_no_method_by_name() {
    let folder = root().join("src/train");
    let sources = files_below(&folder)
        .into_iter()
        .filter(|path| !path.ends_with("method.rs") && !path.starts_with(folder.join("rules")));
    let texts: Vec<String> = sources.map(|path| fs::read_to_string(path).unwrap()).collect();
    assert!(texts.len() > 5, "only {} source files found", texts.len());
    for method in digrap_bench::train::METHODS {
        let literal = format!("\"{}\"", method.name);
        assert!(!texts.iter().any(|text| text.contains(&literal)), "{literal}");
    }
}

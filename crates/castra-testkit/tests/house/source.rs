//! Rust sources as text: which files there are, what in them is code, and what of that is only for tests.
//!
//! A lexer for comments, strings and characters, no more: enough that no rule trips over a word in prose.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The repository.
pub(crate) fn root() -> PathBuf {
    // Cargo says it when it runs a test, too: a binary that was built elsewhere looks where it is run.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or(env!("CARGO_MANIFEST_DIR").into());
    Path::new(&here).ancestors().nth(2).expect("crates/castra-testkit is two below the root").to_path_buf()
}

/// A Rust file with everything but code blanked out; positions are those of the text.
pub(crate) struct Source {
    /// From the root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
    /// Comments, strings and characters are spaces; newlines are kept.
    pub(crate) code: String,
    /// Contents of string literals: where each begins, and what it says.
    pub(crate) strings: Vec<(usize, String)>,
    /// The code without its spaces, and where each byte of it comes from.
    dense: OnceLock<(String, Vec<usize>)>,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Source {
        let (code, strings) = lex(text);
        Source { path: path.into(), text: text.into(), code, strings, dense: OnceLock::new() }
    }

    /// 1-based.
    pub(crate) fn line(&self, at: usize) -> usize {
        self.text[..at].bytes().filter(|byte| *byte == b'\n').count() + 1
    }

    /// `path:line`, for a message.
    pub(crate) fn at(&self, at: usize) -> String {
        format!("{}:{}", self.path, self.line(at))
    }

    /// Where this identifier stands, as a whole word.
    pub(crate) fn words<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        let part = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
        self.code.match_indices(word).map(|(at, _)| at).filter(move |at| {
            let bytes = self.code.as_bytes();
            let before = at.checked_sub(1).and_then(|before| bytes.get(before));
            !part(before) && !part(bytes.get(at + word.len()))
        })
    }

    fn dense(&self) -> &(String, Vec<usize>) {
        self.dense.get_or_init(|| {
            let kept = self.code.bytes().enumerate().filter(|(_, byte)| !byte.is_ascii_whitespace());
            let (places, bytes): (Vec<usize>, Vec<u8>) = kept.unzip();
            (String::from_utf8_lossy(&bytes).into_owned(), places)
        })
    }

    /// Where this piece of code stands, however it is wrapped. It begins and ends at a word's edge.
    pub(crate) fn phrases(&self, phrase: &str) -> Vec<usize> {
        let (dense, places) = self.dense();
        let word = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
        let bytes = dense.as_bytes();
        (dense.match_indices(phrase))
            .filter(|(at, found)| {
                let first = found.as_bytes().first();
                let last = found.as_bytes().last();
                let before = at.checked_sub(1).and_then(|before| bytes.get(before));
                let behind = bytes.get(at + found.len());
                // Blanked spaces join words: what stood apart is apart.
                let adjoins =
                    |a: Option<usize>, b: Option<usize>| matches!((a, b), (Some(a), Some(b)) if a + 1 == b);
                let left = adjoins(at.checked_sub(1).map(|i| places[i]), Some(places[*at]));
                let end = at + found.len() - 1;
                let right = adjoins(Some(places[end]), places.get(end + 1).copied());
                !(left && word(first) && word(before) || right && word(last) && word(behind))
            })
            .map(|(at, _)| places[at])
            .collect()
    }

    /// Modules of `std` (or `core`) that the code names, also in a `use std::{…}`.
    pub(crate) fn std_paths(&self) -> Vec<(usize, String)> {
        let (dense, places) = self.dense();
        let mut found = Vec::new();
        for (at, _) in dense.match_indices("std::") {
            let tail = &dense[at + 5..];
            match tail.strip_prefix('{') {
                None => found.push((places[at], path_of(tail))),
                Some(group) => {
                    for (start, name) in first_level(group) {
                        found.push((places[at + 6 + start], name));
                    }
                }
            }
        }
        found
    }
}

/// `time::{Duration,Instant}` and the like stay one string; a plain path ends where it ends.
fn path_of(tail: &str) -> String {
    let end = tail.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(tail.len());
    let path = tail[..end].trim_end_matches(':');
    match tail[end..].strip_prefix('{') {
        Some(group) if tail[..end].ends_with("::") => {
            let close = matching(group).unwrap_or(group.len());
            format!("{path}::{{{}}}", &group[..close])
        }
        _ => path.to_owned(),
    }
}

fn first_level(group: &str) -> Vec<(usize, String)> {
    let end = matching(group).unwrap_or(group.len());
    let (mut depth, mut start, mut parts) = (0usize, 0usize, Vec::new());
    for (at, c) in group[..end].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push((start, group[start..at].to_owned()));
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push((start, group[start..end].to_owned()));
    parts.retain(|(_, part)| !part.is_empty());
    parts
}

/// The position of the brace that closes what is open already.
fn matching(text: &str) -> Option<usize> {
    let mut depth = 1usize;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// All Rust files below `crates/`, `examples/` and `fuzz/`; nothing that cargo builds.
pub(crate) fn all() -> Vec<Source> {
    let root = root();
    let mut paths = Vec::new();
    for top in ["crates", "examples", "fuzz"] {
        walk(&root.join(top), &mut paths);
    }
    let mut found: Vec<Source> = (paths.iter())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| {
            let name = path.strip_prefix(&root).expect("below the root").to_string_lossy().replace('\\', "/");
            Source::new(&name, &std::fs::read_to_string(path).expect("a source is UTF-8"))
        })
        .collect();
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Every file below a folder, without `target/` and hidden ones.
pub(crate) fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if name == "target" || name == "corpus" || name.starts_with('.') {
            continue;
        }
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&path, found),
            Ok(kind) if kind.is_file() => found.push(path),
            _ => {}
        }
    }
}

/// What ships: files below a `src/`, without the modules that are for tests only.
pub(crate) fn shipped() -> Vec<Source> {
    let all = all();
    let tests = test_files(&all);
    let mut shipped: Vec<Source> = (all.into_iter())
        .filter(|source| source.path.contains("/src/") && !source.path.starts_with("fuzz/"))
        .filter(|source| !tests.iter().any(|test| is_in(&source.path, test)))
        .collect();
    for source in &mut shipped {
        for range in test_items(&source.code) {
            let blank: String =
                source.code[range.clone()].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
            source.code.replace_range(range.clone(), &blank);
            source.strings.retain(|(at, _)| !range.contains(at));
        }
    }
    shipped
}

fn is_in(path: &str, module: &str) -> bool {
    path.strip_prefix(module).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

/// Paths (without `.rs`) of modules that stand behind a `#[cfg(test)] mod name;`.
fn test_files(all: &[Source]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for source in all {
        let (folder, file) = source.path.rsplit_once('/').unwrap_or(("", &source.path));
        let stem = file.trim_end_matches(".rs");
        let owner = match stem {
            "mod" | "lib" | "main" => folder.to_owned(),
            _ => format!("{folder}/{stem}"),
        };
        for range in test_items(&source.code) {
            let item = &source.code[range.clone()];
            let Some(at) = item.find("mod ").filter(|_| item.trim_end().ends_with(';')) else { continue };
            let name = item[at + 4..].trim().trim_end_matches(';').trim();
            let named =
                (source.strings.iter()).find(|(place, _)| range.contains(place)).map(|(_, path)| path);
            found.insert(match named {
                Some(path) => format!("{folder}/{}", path.trim_end_matches(".rs")),
                None => format!("{owner}/{name}"),
            });
        }
    }
    found
}

/// Items behind `#[cfg(test)]`, from that attribute to their end.
fn test_items(code: &str) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    for mark in ["#[cfg(test)]", "#[test]"] {
        for (start, _) in code.match_indices(mark) {
            if found.iter().any(|range| range.contains(&start)) {
                continue;
            }
            let tail = &code[start..];
            let end = tail.find(['{', ';']).map_or(tail.len(), |at| match tail.as_bytes()[at] {
                b';' => at + 1,
                _ => matching(&tail[at + 1..]).map_or(tail.len(), |close| at + close + 2),
            });
            found.push(start..start + end);
        }
    }
    found
}

/// Blanks everything that is not code, and collects string literals.
fn lex(text: &str) -> (String, Vec<(usize, String)>) {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut strings = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text.as_bytes()[at..];
        let (end, inside) = if rest.starts_with(b"//") {
            (at + rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len()), None)
        } else if rest.starts_with(b"/*") {
            (block_comment(bytes, at), None)
        } else if let Some((from, to, end)) = raw_string(bytes, at) {
            (end, Some(from..to))
        } else if rest[0] == b'"' {
            let end = quoted(bytes, at, b'"');
            (end, Some(at + 1..end.saturating_sub(1).max(at + 1)))
        } else if rest[0] == b'\'' && is_char(rest) {
            (quoted(bytes, at, b'\''), None)
        } else {
            at += 1;
            continue;
        };
        for byte in &mut code[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        if let Some(inside) = inside {
            strings.push((at, String::from_utf8_lossy(&bytes[inside]).into_owned()));
        }
        at = end;
    }
    (String::from_utf8_lossy(&code).into_owned(), strings)
}

fn block_comment(bytes: &[u8], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0usize);
    while at < bytes.len() {
        match &bytes[at..bytes.len().min(at + 2)] {
            b"/*" => (at, depth) = (at + 2, depth + 1),
            b"*/" => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// `r"…"`, `br#"…"#`: from and to of the inside, and the end.
fn raw_string(bytes: &[u8], start: usize) -> Option<(usize, usize, usize)> {
    let before = start.checked_sub(1).and_then(|before| bytes.get(before));
    if before.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_') {
        return None;
    }
    let mut at = start;
    while matches!(bytes.get(at), Some(b'b' | b'c')) {
        at += 1;
    }
    if bytes.get(at) != Some(&b'r') {
        return None;
    }
    at += 1;
    let hashes = bytes[at..].iter().take_while(|b| **b == b'#').count();
    at += hashes;
    if bytes.get(at) != Some(&b'"') {
        return None;
    }
    let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let length = bytes[at + 1..].windows(close.len()).position(|window| window == close)?;
    Some((at + 1, at + 1 + length, at + 1 + length + close.len()))
}

fn quoted(bytes: &[u8], start: usize, quote: u8) -> usize {
    let mut at = start + 1;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    bytes.len().min(at + 1)
}

/// A character literal, not a lifetime.
fn is_char(rest: &[u8]) -> bool {
    match rest.get(1) {
        Some(b'\\') => true,
        Some(first) => {
            let width = match first {
                0..=0x7f => 1,
                0xc0..=0xdf => 2,
                0xe0..=0xef => 3,
                _ => 4,
            };
            rest.get(1 + width) == Some(&b'\'')
        }
        None => false,
    }
}

#[test]
fn only_code_is_code() {
    let source = Source::new(
        "x.rs",
        concat!(
            "// unsafe\nfn a<'a>(x: &'a str) { /* unsafe /* unsafe */ unsafe */ }\n",
            "const S: &str = \"SELECT \\\" unsafe\"; const R: &[u8] = br#\"raw \" unsafe\"#;\n",
            "const C: char = '\"'; const Q: char = '\\''; const U: char = 'é';\n",
            "unsafe fn b() {}\n",
        ),
    );
    let found: Vec<_> = source.words("unsafe").map(|at| source.at(at)).collect();
    assert_eq!(found, ["x.rs:5"]);
    let strings: Vec<_> = source.strings.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(strings, ["SELECT \\\" unsafe", "raw \" unsafe"]);
}

#[test]
fn words_and_phrases_are_whole() {
    let source = Source::new(
        "x.rs",
        "let unsafely = MyCommand::new();\nlet y = std::process::Command\n    ::new(a);\nreturn mpsc::channel ();",
    );
    assert_eq!(source.words("unsafe").count(), 0);
    let found: Vec<_> = source.phrases("Command::new").into_iter().map(|at| source.line(at)).collect();
    assert_eq!(found, [2]);
    assert_eq!(source.phrases("mpsc::channel()").len(), 1);
}

#[test]
fn paths_into_std_are_seen_in_groups_too() {
    let source = Source::new(
        "x.rs",
        "use std::{fs::{self, File}, time::Duration};\nuse std::time::{Duration, Instant};\nstd::env::var(x)",
    );
    let found: Vec<_> = source.std_paths().into_iter().map(|(at, path)| (source.line(at), path)).collect();
    let expected =
        [(1, "fs::{self,File}"), (1, "time::Duration"), (2, "time::{Duration,Instant}"), (3, "env::var")];
    assert_eq!(found, expected.map(|(line, path)| (line, path.to_owned())));
}

#[test]
fn what_is_for_tests_is_found() {
    let lib = Source::new(
        "crates/a/src/b.rs",
        "fn x() {}\n#[cfg(test)]\nmod tests { fn y() { {} } }\nfn z() {}\n#[cfg(test)]\n#[path = \"b_tests.rs\"]\nmod more;\n#[cfg(test)]\nmod deep;\n",
    );
    let files = test_files(std::slice::from_ref(&lib));
    assert_eq!(Vec::from_iter(files), ["crates/a/src/b/deep", "crates/a/src/b_tests"]);
    let items: Vec<_> = test_items(&lib.code).into_iter().map(|range| lib.line(range.start)).collect();
    assert_eq!(items, [2, 5, 8]);
    assert!(is_in("crates/a/src/b/deep/c.rs", "crates/a/src/b/deep"));
    assert!(!is_in("crates/a/src/b/deeper.rs", "crates/a/src/b/deep"));
}

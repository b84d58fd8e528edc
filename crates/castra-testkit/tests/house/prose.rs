//! Documents and the head of every file: what they name exists, and what they must say is said.

use crate::source::{all, root, shipped, walk};
use std::collections::BTreeSet;

/// Longest file, lines. Longer ones are here with their reason, and leave the list when they shrink.
const MOST_LINES: usize = 450;
const LONGER: &[(&str, &str)] = &[];

const PAGES: &[&str] = &["ARCHITECTURE.md", "README.md", "CONTRIBUTING.md"];

fn page(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn every_file_says_what_it_owns() {
    let mut wrong = Vec::new();
    for source in all() {
        let first = source.text.lines().next().unwrap_or_default();
        // "//! Lines." says nothing; a sentence does.
        let said = first.strip_prefix("//! ").map(|rest| rest.split_whitespace().count());
        if said.is_none_or(|words| words < 3) {
            wrong.push(format!("{}: {first:?}", source.path));
        }
    }
    assert!(
        wrong.is_empty(),
        "files that do not open with a sentence after `//!`:\n  {}",
        wrong.join("\n  ")
    );
}

#[test]
fn files_stay_small() {
    let mut wrong = Vec::new();
    let files = all();
    for source in files.iter().filter(|source| source.path.contains("/src/")) {
        let lines = source.text.lines().count();
        let listed = LONGER.iter().any(|(path, _)| *path == source.path);
        match (lines > MOST_LINES, listed) {
            (true, false) => {
                wrong.push(format!("{} has {lines} lines: split it by responsibility", source.path))
            }
            (false, true) => wrong.push(format!("{} has {lines} lines: take it off the list", source.path)),
            _ => {}
        }
    }
    for (path, _) in LONGER {
        if !files.iter().any(|source| source.path == *path) {
            wrong.push(format!("{path} is gone: take it off the list"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_is_compiled() {
    let files = all();
    let roots = ["lib.rs", "build.rs"];
    let mut wrong = Vec::new();
    for source in files.iter().filter(|source| source.path.contains("/src/")) {
        let (folder, name) = source.path.rsplit_once('/').expect("in src/");
        if folder.ends_with("/src/bin")
            || name == "main.rs"
            || roots.contains(&name) && folder.ends_with("/src")
        {
            continue;
        }
        // `a/mod.rs` is module `a` of the folder above; any other file is named by its folder's module.
        let (folder, module) = match name {
            "mod.rs" => folder.rsplit_once('/').expect("below src/"),
            _ => (folder, name.trim_end_matches(".rs")),
        };
        let parents = [
            format!("{folder}.rs"),
            format!("{folder}/mod.rs"),
            format!("{folder}/lib.rs"),
            format!("{folder}/main.rs"),
        ];
        let by_path = format!("{name}\"]");
        let named = files.iter().any(|other| {
            let declares = |word| !other.phrases(&format!("mod{word};")).is_empty();
            (parents.contains(&other.path) && declares(module)) || other.text.contains(&by_path)
        });
        if !named {
            wrong.push(format!("{}: no `mod {module};` names it", source.path));
        }
    }
    let mut found = Vec::new();
    walk(&root().join("crates"), &mut found);
    for path in found {
        let name = path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
        if name.split('/').nth(2) == Some("src") && !name.ends_with(".rs") {
            wrong.push(format!("{name}: not a source"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// All pages: those at the root and in `docs/`.
fn pages() -> Vec<(String, String)> {
    let mut found = Vec::new();
    walk(&root().join("docs"), &mut found);
    let in_docs = (found.into_iter())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .map(|path| path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned());
    let mut names: BTreeSet<String> = in_docs.collect();
    names.extend(PAGES.iter().map(|&name| name.to_owned()));
    names.into_iter().map(|name| (name.clone(), page(&name))).collect()
}

/// The text outside fenced blocks.
fn prose(text: &str) -> String {
    let mut inside = false;
    let lines = text.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        inside ^= fence;
        !inside && !fence
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Code spans that name a path of the repository: below one of its folders, or a Rust file.
fn named_paths(text: &str) -> Vec<String> {
    let tops = ["crates/", "docs/", "fuzz/", "examples/", ".ci/", "web/"];
    let roots = ["Cargo.toml", "Cargo.lock", "deny.toml", "clippy.toml", "rustfmt.toml", "./test"];
    let is_path = |span: &&str| {
        let plain = span.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c));
        let known = tops.iter().any(|top| span.starts_with(top)) || roots.contains(span);
        plain && (known || (span.ends_with(".rs") && span.len() > 3))
    };
    prose(text).split('`').skip(1).step_by(2).filter(is_path).map(str::to_owned).collect()
}

/// A path from the root; or the end of exactly one file's path, as in `session/actor.rs`.
fn exists(path: &str, files: &[String]) -> bool {
    let plain = path.trim_start_matches("./").trim_end_matches('/');
    let tail = format!("/{plain}");
    root().join(plain).exists() || files.iter().filter(|file| file.ends_with(&tail)).count() == 1
}

#[test]
fn every_path_that_a_document_names_exists() {
    let files: Vec<String> = all().into_iter().map(|source| source.path).collect();
    let mut wrong = Vec::new();
    for (name, text) in pages() {
        let paths = named_paths(&text);
        assert!(name != "ARCHITECTURE.md" || paths.len() > 40, "ARCHITECTURE.md names {} paths", paths.len());
        wrong.extend(paths.iter().filter(|path| !exists(path, &files)).map(|path| format!("{name}: {path}")));
    }
    assert!(wrong.is_empty(), "named and not there (or there more than once):\n  {}", wrong.join("\n  "));
}

#[test]
fn every_link_leads_somewhere() {
    let mut wrong = Vec::new();
    for (name, text) in pages() {
        let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
        for piece in prose(&text).split("](").skip(1) {
            let target = piece.split([')', '#', ' ']).next().unwrap_or_default();
            if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            if !root().join(folder).join(target).exists() {
                wrong.push(format!("{name}: {target}"));
            }
        }
    }
    assert!(wrong.is_empty(), "links to nothing:\n  {}", wrong.join("\n  "));
}

#[test]
fn architecture_names_every_crate_and_every_folder_of_sources() {
    let text = page("ARCHITECTURE.md");
    let mut wanted = BTreeSet::new();
    for source in all() {
        let Some((folder, _)) = source.path.rsplit_once('/') else { continue };
        let mut parts = folder.split('/');
        // A crate, and what stands right below its `src/`: deeper ones are their parents' matter.
        if let (Some("crates"), Some(name), Some("src")) = (parts.next(), parts.next(), parts.next()) {
            wanted.insert(format!("crates/{name}/"));
            if let Some(module) = parts.next()
                && module != "tests"
            {
                wanted.insert(format!("crates/{name}/src/{module}"));
            }
        }
    }
    // A folder is named by itself, by its module file, or by something in it.
    let missing: Vec<_> = wanted.iter().filter(|path| !text.contains(&format!("`{path}"))).collect();
    assert!(missing.is_empty(), "ARCHITECTURE.md does not name {missing:?}");
}

/// `sh` blocks are run by the end-to-end tests in their order; others say why they are not.
#[test]
fn blocks_of_the_readme_say_what_they_are() {
    let text = page("README.md");
    let (mut inside, mut run) = (false, 0);
    for line in text.lines().filter_map(|line| line.trim_start().strip_prefix("```")) {
        inside ^= true;
        if !inside {
            continue;
        }
        run += usize::from(line == "sh");
        let known = ["sh", "sh build", "sh account", "sh terminal", "rust", "text"];
        assert!(known.contains(&line), "a block is {line:?}, not one of {known:?}");
    }
    assert!(run > 5, "only {run} blocks can be run");
}

/// Whoever parses what others wrote has an entry point for fuzzing, and it can be run.
#[test]
fn every_fuzz_entry_has_a_target() {
    let (mut entries, mut called) = (BTreeSet::new(), BTreeSet::new());
    for source in all() {
        let names = |text: &str, before: &str| -> Vec<String> {
            let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            text.match_indices(before).map(|(at, _)| word(&text[at + before.len() - 5..])).collect()
        };
        if source.path.starts_with("fuzz/") {
            called.extend(names(&source.code, "::fuzz_"));
        } else if source.path.contains("/src/") {
            entries.extend(names(&source.code, "pub fn fuzz_"));
        }
    }
    assert!(called.remove("fuzz_target"), "targets are no targets any more");
    assert!(!entries.is_empty());
    assert_eq!(called, entries, "targets in fuzz/, and entry points");
}

/// The allow-list of control requests, as the code has it, is the one that people read.
#[test]
fn every_control_request_that_is_passed_on_is_documented() {
    let sources = shipped();
    let list =
        sources.iter().find(|source| source.path == "crates/castra-claude/src/control.rs").expect("the list");
    let named: Vec<&str> = (list.strings.iter().map(|(_, text)| text.as_str()))
        .filter(|text| text.contains('_') && text.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        .collect();
    assert!(named.len() > 10, "only {named:?} were found");
    let page = page("docs/protocol.md");
    let missing: Vec<_> = named.iter().filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "docs/protocol.md does not have {missing:?}");
}

/// Lists that code owns are printed in documents; the documents have all of it.
#[test]
fn closed_lists_in_documents_are_whole() {
    let architecture = page("ARCHITECTURE.md");
    for state in castra_proto::RunState::ALL {
        assert!(architecture.contains(state.as_str()), "ARCHITECTURE.md does not know the state {state}");
    }
    let protocol = page("docs/protocol.md");
    for own in castra_proto::OwnKind::ALL {
        assert!(protocol.contains(&format!("`{}`", own.as_str())), "docs/protocol.md does not know {own:?}");
    }
}

/// Where the daemon may be killed, as the code has it, is what people read; and each place is one where a test kills it.
#[test]
fn every_failpoint_is_documented_and_hit() {
    let (mut places, mut said) = (BTreeSet::new(), BTreeSet::new());
    for source in all() {
        let tests = source.path.contains("/tests/");
        for (at, text) in &source.strings {
            // `name:nth`
            let name = text.split(':').next().unwrap_or_default();
            if source.code[..*at].ends_with("failpoint!(") {
                places.insert(text.clone());
            } else if tests && !source.path.contains("/tests/house/") {
                said.insert(name.to_owned());
            }
        }
    }
    assert!(places.len() > 30, "only {places:?} were found");
    let architecture = page("ARCHITECTURE.md");
    let table = (architecture.lines())
        .skip_while(|line| !line.starts_with("| failpoint |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let named = |row: &str| {
        let places = row.split('|').nth(1).unwrap_or_default();
        places.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()
    };
    let documented: Vec<String> = table.flat_map(named).collect();
    assert_eq!(
        BTreeSet::from_iter(documented.iter().cloned()),
        places,
        "in ARCHITECTURE.md, and in the code"
    );
    assert_eq!(documented.len(), places.len(), "each place has one row");
    let unhit: Vec<_> = places.difference(&said).collect();
    assert!(unhit.is_empty(), "no test kills the daemon at {unhit:?}");
}

#[test]
fn paths_are_told_from_other_code() {
    let text = "`crates/a/src/b.rs` and `session/actor.rs`, not `application/json`, `/sessions/{id}` or `.rs`;\n\
        ```sh\n`docs/no.md`\n```\n`./test`, `docs/x.md`";
    assert_eq!(named_paths(text), ["crates/a/src/b.rs", "session/actor.rs", "./test", "docs/x.md"]);
    let files =
        ["crates/a/src/one.rs", "crates/a/src/two/mod.rs", "crates/b/src/two/mod.rs"].map(String::from);
    assert!(exists("one.rs", &files) && !exists("two/mod.rs", &files) && !exists("three.rs", &files));
}

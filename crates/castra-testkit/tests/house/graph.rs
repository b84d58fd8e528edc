//! The walls between crates: who may use whom, what each refuses to link, and what nobody may.

use crate::source::root;
use std::collections::{BTreeMap, BTreeSet};
use toml::{Table, Value};

/// Design §2: each crate and the crates of castra that it uses. castra reaches the shim through the
/// supervisor, which carries its image.
const EDGES: &[(&str, &[&str])] = &[
    ("castra", &["castra-model", "castra-proto", "castra-supervisor"]),
    ("castra-claude", &["castra-proto"]),
    ("castra-model", &[]),
    ("castra-proto", &[]),
    ("castra-shim", &["castra-proto"]),
    ("castra-store", &["castra-proto"]),
    ("castra-supervisor", &["castra-claude", "castra-proto", "castra-shim", "castra-store"]),
];

/// For tests and measurements only; they may use what they like, and nothing that ships may use them.
const DEV_ONLY: [&str; 2] = ["castra-bench", "castra-testkit"];

/// What a crate refuses, by the crates that would let it in.
const REFUSED: &[(&str, &[&str])] = &[
    ("castra-proto", &["tokio", "futures", "rustix", "libc", "sqlx", "axum", "hyper", "clap"]),
    ("castra-claude", &["tokio", "futures", "rustix", "libc", "sqlx", "axum", "hyper", "clap", "jiff"]),
    ("castra-shim", &["tokio", "sqlx", "axum", "hyper", "rustls", "clap"]),
    ("castra-store", &["axum", "hyper", "clap", "rustix"]),
    ("castra-supervisor", &["sqlx", "axum", "hyper", "hyper-util", "clap", "utoipa"]),
    ("castra-model", &["sqlx", "clap", "rustix"]),
    ("castra", &["sqlx"]),
];

/// Nobody, at any depth (deny.toml says why).
const BANNED: &[&str] =
    &["ring", "openssl", "openssl-sys", "native-tls", "tokio-tar", "async-tar", "astral-tokio-tar"];

fn read(path: &str) -> Table {
    let text = std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    text.parse().unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn crates() -> BTreeMap<String, Table> {
    let folders = std::fs::read_dir(root().join("crates")).expect("crates/ is there");
    (folders.flatten())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .map(|name| (name.clone(), read(&format!("crates/{name}/Cargo.toml"))))
        .collect()
}

/// Names in `[dependencies]`, `[build-dependencies]` and those of single targets.
fn dependencies(manifest: &Table) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut take = |table: &Table| {
        for section in ["dependencies", "build-dependencies"] {
            found.extend(
                table.get(section).and_then(Value::as_table).into_iter().flat_map(Table::keys).cloned(),
            );
        }
    };
    take(manifest);
    for target in manifest.get("target").and_then(Value::as_table).into_iter().flat_map(Table::values) {
        target.as_table().into_iter().for_each(&mut take);
    }
    found
}

fn is_ours(name: &str) -> bool {
    name == "castra" || name.starts_with("castra-")
}

#[test]
fn the_crate_graph_is_the_picture_in_the_design() {
    let mut crates = crates();
    for (name, manifest) in &crates {
        assert_eq!(
            manifest["package"]["name"].as_str(),
            Some(name.as_str()),
            "a folder bears its crate's name"
        );
        if !DEV_ONLY.contains(&name.as_str()) {
            let used = dependencies(manifest);
            let dev: Vec<_> = DEV_ONLY.iter().filter(|dev| used.contains(**dev)).collect();
            assert!(dev.is_empty(), "{name} ships with {dev:?}");
        }
    }
    for dev in DEV_ONLY {
        let manifest = crates.remove(dev).unwrap_or_else(|| panic!("{dev} is gone"));
        let published = manifest["package"].get("publish").and_then(Value::as_bool);
        assert_eq!(published, Some(false), "{dev} is not for publication");
    }
    let found: BTreeMap<String, BTreeSet<String>> = (crates.iter())
        .map(|(name, manifest)| {
            (name.clone(), dependencies(manifest).into_iter().filter(|other| is_ours(other)).collect())
        })
        .collect();
    let expected: BTreeMap<String, BTreeSet<String>> = (EDGES.iter())
        .map(|(name, uses)| ((*name).to_owned(), uses.iter().map(|&other| other.to_owned()).collect()))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn architecture_draws_the_same_graph() {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md is there");
    let mut drawn = BTreeMap::new();
    for line in text.lines() {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        let [name, uses, ..] = cells[..] else { continue };
        let Some(name) = name.strip_prefix("`castra").and_then(|rest| rest.strip_suffix('`')) else {
            continue;
        };
        let uses: BTreeSet<String> =
            uses.split('`').filter(|word| is_ours(word)).map(str::to_owned).collect();
        drawn.insert(format!("castra{name}"), uses);
    }
    drawn.retain(|name, _| !DEV_ONLY.contains(&name.as_str()));
    let expected: BTreeMap<String, BTreeSet<String>> = (EDGES.iter())
        .map(|(name, uses)| ((*name).to_owned(), uses.iter().map(|&other| other.to_owned()).collect()))
        .collect();
    assert_eq!(drawn, expected, "the table of crates in ARCHITECTURE.md");
}

#[test]
fn no_crate_links_what_it_refuses() {
    let crates = crates();
    for (name, refused) in REFUSED {
        let has = dependencies(&crates[*name]);
        let wrong: Vec<_> = refused.iter().filter(|other| has.contains(**other)).collect();
        assert!(wrong.is_empty(), "{name} refuses {wrong:?}");
    }
}

#[test]
fn every_crate_is_held_to_the_workspace_lints() {
    let workspace = read("Cargo.toml");
    let lints = &workspace["workspace"]["lints"];
    assert_eq!(lints["rust"]["unsafe_code"].as_str(), Some("deny"));
    for lint in ["unwrap_used", "expect_used", "print_stdout", "print_stderr", "todo", "dbg_macro"] {
        assert_eq!(lints["clippy"][lint].as_str(), Some("deny"), "{lint}");
    }
    for (name, manifest) in crates() {
        let held = manifest.get("lints").and_then(|lints| lints.get("workspace")).and_then(Value::as_bool);
        assert_eq!(held, Some(true), "{name} has lints of its own");
    }
}

/// The same as cargo-deny's `bans` and `sources`, for everyone who has no cargo-deny.
#[test]
fn the_lock_file_holds_nothing_banned_and_nothing_from_elsewhere() {
    let lock = read("Cargo.lock");
    let mut registries = BTreeSet::new();
    let packages = lock["package"].as_array().expect("packages");
    assert!(packages.len() > 50, "only {} packages were read", packages.len());
    let mut wrong = Vec::new();
    for package in packages {
        let name = package["name"].as_str().expect("a name");
        // Cargo locks what a weak feature (`ring?/alloc`) names, though nobody builds it.
        let weak = |other: &Value| {
            let uses = |dependency: &Value| dependency.as_str() == Some(name);
            other.get("dependencies").and_then(Value::as_array).into_iter().flatten().any(uses)
                && other["name"].as_str() != Some("rustls-webpki")
        };
        let unused = name == "ring" && !packages.iter().any(weak);
        if BANNED.contains(&name) && !unused {
            wrong.push(format!("{name} is banned"));
        }
        match package.get("source").and_then(Value::as_str) {
            Some(source) if source.starts_with("registry+") && package.get("checksum").is_some() => {
                registries.insert(source);
            }
            None if is_ours(name) => {}
            other => wrong.push(format!("{name} comes from {other:?}")),
        }
    }
    assert_eq!(registries.len(), 1, "one registry, cargo's own: {registries:?}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn deny_toml_bans_the_same() {
    let deny = read("deny.toml");
    let banned: BTreeSet<&str> = (deny["bans"]["deny"].as_array().into_iter().flatten())
        .filter_map(|entry| entry.get("crate").or(entry.get("name")).unwrap_or(entry).as_str())
        .collect();
    assert_eq!(banned, BTreeSet::from_iter(BANNED.iter().copied()));
    assert_eq!(deny["sources"]["unknown-registry"].as_str(), Some("deny"));
    assert_eq!(deny["sources"]["unknown-git"].as_str(), Some("deny"));
}

/// A newcomer who adds a dependency to one crate and not to the workspace would get a second version of it.
#[test]
fn versions_are_named_once_in_the_workspace() {
    for (name, manifest) in crates() {
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for (other, entry) in manifest.get(section).and_then(Value::as_table).into_iter().flatten() {
                let shared = entry.get("workspace").and_then(Value::as_bool) == Some(true);
                assert!(shared, "{name}: {other} should say `workspace = true`");
            }
        }
    }
}

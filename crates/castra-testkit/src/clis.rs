//! The real CLIs that tests run with. There is no skipping: without one the test fails and says what to do.

use crate::daemon::Daemon;
use crate::world::World;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// One `claude` executable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cli {
    /// `2.1.197`; the name of its cases in messages.
    pub version: String,
    pub path: PathBuf,
}

impl std::fmt::Display for Cli {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "claude {}", self.version)
    }
}

/// The executables that `CASTRA_TEST_CLAUDE` names, separated by colons: npm's first, then the newest.
///
/// # Panics
/// Where it is unset, or names something that does not say a version.
pub fn clis() -> Vec<Cli> {
    let named = std::env::var_os("CASTRA_TEST_CLAUDE").unwrap_or_default();
    let paths: Vec<PathBuf> =
        std::env::split_paths(&named).filter(|path| !path.as_os_str().is_empty()).collect();
    assert!(
        !paths.is_empty(),
        "CASTRA_TEST_CLAUDE is not set: these tests need the real CLI. Run `./test`, which fetches it"
    );
    paths.into_iter().map(|path| Cli { version: version(&path), path }).collect()
}

/// A world and a daemon for each of them.
pub fn each(program: &str, script: &str, test: impl Fn(&Cli, &World, &mut Daemon<'_>)) {
    for cli in clis() {
        let world = World::new(program, &cli.path, script);
        test(&cli, &world, &mut world.daemon());
    }
}

fn version(path: &std::path::Path) -> String {
    let home = tempfile::tempdir().expect("a temporary HOME");
    let output = Command::new(path)
        .arg("--version")
        .env_clear()
        .env("HOME", home.path())
        .env("PATH", "/usr/bin:/bin")
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("CASTRA_TEST_CLAUDE names {}: {error}. Run `./test`", path.display()));
    let said = String::from_utf8_lossy(&output.stdout);
    match said.split_once(" (Claude Code)") {
        Some((version, _)) => version.to_owned(),
        None => panic!("{} --version said {said:?}, which is no Claude Code", path.display()),
    }
}

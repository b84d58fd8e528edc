//! Where `fake-claude` is: built once for each test program, by the cargo that runs the test.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The executable, for `CASTRA_CLAUDE_PATH`. `CASTRA_TEST_FAKE` names one that is built already.
///
/// Cargo offers a package's executables only to that package's own tests, hence the nested build; where it is
/// fresh it costs a fifth of a second.
pub fn fake_claude() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(find).clone()
}

fn find() -> PathBuf {
    if let Some(path) = std::env::var_os("CASTRA_TEST_FAKE") {
        return path.into();
    }
    let own = std::env::current_exe().expect("this test program");
    // target/<profile>/deps/<test>
    let profile = own.ancestors().nth(2).expect("a target folder");
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")));
    build.args(["build", "--quiet", "--offline", "--package", "castra-testkit", "--bin", "fake-claude"]);
    build.arg("--target-dir").arg(profile.parent().expect("a target folder"));
    if profile.ends_with("release") {
        build.arg("--release");
    }
    let output = build.stdin(Stdio::null()).output().expect("cargo");
    assert!(
        output.status.success(),
        "fake-claude cannot be built: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let path = profile.join("fake-claude");
    assert!(path.is_file(), "{} was not built", path.display());
    path
}

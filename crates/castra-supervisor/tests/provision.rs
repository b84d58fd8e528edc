//! Finding, checking and installing claude, over the real host of this machine, with programs that pretend.

// Helpers of tests, which clippy does not know for tests.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use castra_proto::ErrorCode;
use castra_supervisor::host::{Line, LocalHost, Progress};
use castra_supervisor::provision::{Candidate, Cli, Provision, Source};
use castra_supervisor::{ClaudeConfig, Install};
use common::Machine;

/// A machine with an own PATH and an own user, so that nothing of the real one is found.
struct Bed {
    temp: tempfile::TempDir,
    host: Machine,
}

fn text(path: impl AsRef<Path>) -> String {
    path.as_ref().to_str().unwrap().to_owned()
}

fn script(path: &Path, body: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

impl Bed {
    fn new() -> Bed {
        let temp = tempfile::tempdir().unwrap();
        let local = LocalHost::new(temp.path().join("castra")).unwrap();
        let user = text(temp.path().join("user"));
        let host = Machine { local, told: Box::new(move |probe| probe.user_home.clone_from(&user)) };
        let bed = Bed { temp, host };
        // What castra itself runs, and no npm and no curl.
        for tool in ["readlink", "chmod", "mkdir", "cat", "touch", "env", "cp", "sleep", "bash"] {
            let real =
                ["/usr/bin", "/bin"].iter().map(|d| Path::new(d).join(tool)).find(|p| p.exists()).unwrap();
            fs::create_dir_all(bed.path("tools")).unwrap();
            symlink(real, bed.path("tools").join(tool)).unwrap();
        }
        bed
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().canonicalize().unwrap().join(name)
    }

    fn cached(&self, version: &str) -> PathBuf {
        self.path(&format!("castra/claude/{version}/claude"))
    }

    /// A claude that counts how often it is asked.
    fn claude(&self, at: PathBuf, version: &str) -> PathBuf {
        let calls = text(self.path("calls"));
        script(&at, &format!("echo \"$0 $*\" >> {calls}; env > {calls}.env; echo '{version} (Claude Code)'"));
        at
    }

    fn calls(&self) -> usize {
        fs::read_to_string(self.path("calls")).unwrap_or_default().lines().count()
    }

    fn provision(&self, config: ClaudeConfig) -> Provision {
        let path = format!("{}:relative::{}", text(self.path("bin")), text(self.path("tools")));
        let proxy = ("https_proxy", "http://127.0.0.1:9".to_owned());
        let registry = ("NPM_CONFIG_REGISTRY", "http://127.0.0.1:9".to_owned());
        let others = [("PATH", path), proxy, registry, ("ANTHROPIC_API_KEY", "secret".to_owned())];
        let env: BTreeMap<_, _> = others.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Provision::new(config, env)
    }

    fn never(&self) -> ClaudeConfig {
        ClaudeConfig { install: Install::Never, ..ClaudeConfig::default() }
    }

    async fn resolve(&self, config: ClaudeConfig) -> Result<Cli, (ErrorCode, String)> {
        self.provision(config).resolve(&self.host, None).await.map_err(told)
    }
}

fn told(error: castra_supervisor::Error) -> (ErrorCode, String) {
    let problem = error.problem();
    assert!(problem.hint.is_some(), "no next step: {problem:?}");
    (problem.code, problem.detail)
}

fn cli(path: &Path, version: &str, source: Source) -> Cli {
    Cli { path: text(path), version: version.into(), source }
}

#[tokio::test]
async fn path_then_the_home_then_the_newest_valid_of_the_cache() {
    let bed = Bed::new();
    let (code, detail) = bed.resolve(bed.never()).await.unwrap_err();
    assert_eq!(code, ErrorCode::CliNotFound);
    assert_eq!(detail, "no claude was found in PATH, ~/.local/bin or castra's cache");

    let old = bed.claude(bed.cached("2.1.9"), "2.1.9");
    assert_eq!(bed.resolve(bed.never()).await, Ok(cli(&old, "2.1.9", Source::Cache)));
    let new = bed.claude(bed.cached("2.1.10"), "2.1.10");
    assert_eq!(bed.resolve(bed.never()).await, Ok(cli(&new, "2.1.10", Source::Cache)));
    // Broken, not executable, or a folder of another name: the newest valid one counts.
    script(&bed.cached("2.1.11"), "exit 1");
    bed.claude(bed.cached("2.1.12"), "2.1.12");
    fs::set_permissions(bed.cached("2.1.12"), fs::Permissions::from_mode(0o644)).unwrap();
    bed.claude(bed.cached(".new-9.9.9"), "9.9.9");
    assert_eq!(bed.resolve(bed.never()).await, Ok(cli(&new, "2.1.10", Source::Cache)));

    let home = bed.claude(bed.path("user/.local/bin/claude"), "1.9.0");
    assert_eq!(bed.resolve(bed.never()).await, Ok(cli(&home, "1.9.0", Source::Home)));

    let real = bed.claude(bed.path("versions/3.0.0"), "3.0.0");
    fs::create_dir_all(bed.path("bin")).unwrap();
    symlink("../versions/3.0.0", bed.path("bin/claude")).unwrap();
    assert_eq!(bed.resolve(bed.never()).await, Ok(cli(&real, "3.0.0", Source::Path)));
}

#[tokio::test]
async fn what_is_not_claude_is_passed_over_and_told() {
    let bed = Bed::new();
    script(&bed.path("bin/claude"), "printf 'Claude the cat\\033[2J 1.0'");
    let (code, detail) = bed.resolve(bed.never()).await.unwrap_err();
    assert_eq!(code, ErrorCode::CliNotFound);
    let path = text(bed.path("bin/claude"));
    let said = "is not Claude Code: --version says \"Claude the cat[2J 1.0\"";
    assert_eq!(detail, format!("no claude was found in PATH, ~/.local/bin or castra's cache: {path} {said}"));
    let cached = bed.claude(bed.cached("2.1.9"), "2.1.9");
    assert_eq!(bed.resolve(bed.never()).await, Ok(cli(&cached, "2.1.9", Source::Cache)));
}

#[tokio::test]
async fn a_configured_path_is_the_answer_or_an_error() {
    let bed = Bed::new();
    bed.claude(bed.cached("2.1.9"), "2.1.9");
    let real = bed.claude(bed.path("own/claude-real"), "4.0.0");
    symlink(&real, bed.path("own/claude")).unwrap();
    script(&bed.path("own/cat"), "echo meow");
    let with = |name: &str| ClaudeConfig { path: Some(bed.path(name)), ..bed.never() };
    assert_eq!(bed.resolve(with("own/claude")).await, Ok(cli(&real, "4.0.0", Source::Configured)));
    let missing = format!("the configured claude is not there: {}", text(bed.path("own/none")));
    assert_eq!(bed.resolve(with("own/none")).await, Err((ErrorCode::CliNotFound, missing)));
    let cat = format!("{} is not Claude Code: --version says \"meow\"", text(bed.path("own/cat")));
    assert_eq!(bed.resolve(with("own/cat")).await, Err((ErrorCode::CliStartFailed, cat)));
    let pinned = ClaudeConfig { version: Some("2.1.9".into()), ..with("own/claude") };
    assert_eq!(bed.resolve(pinned).await.unwrap_err().0, ErrorCode::CliNotFound);
    let relative = ClaudeConfig { path: Some("claude".into()), ..bed.never() };
    assert_eq!(bed.resolve(relative).await.unwrap_err().0, ErrorCode::CliNotFound);
}

#[tokio::test]
async fn a_pinned_version_is_taken_wherever_it_is() {
    let bed = Bed::new();
    bed.claude(bed.path("bin/claude"), "3.0.0");
    bed.claude(bed.cached("2.1.10"), "2.1.10");
    let old = bed.claude(bed.cached("2.1.9"), "2.1.9");
    let pin = |version: &str| ClaudeConfig { version: Some(version.into()), ..bed.never() };
    assert_eq!(bed.resolve(pin("2.1.9")).await, Ok(cli(&old, "2.1.9", Source::Cache)));
    assert_eq!(bed.resolve(pin("3.0.0")).await.unwrap().source, Source::Path);
    let (code, detail) = bed.resolve(pin("2.1.11")).await.unwrap_err();
    assert_eq!(code, ErrorCode::CliNotFound);
    assert!(detail.starts_with("no claude of version 2.1.11 was found: "), "{detail}");
}

#[tokio::test]
async fn a_program_is_asked_once_and_with_nothing_of_the_user() {
    let bed = Bed::new();
    let real = bed.claude(bed.path("versions/a"), "3.0.0");
    fs::create_dir_all(bed.path("bin")).unwrap();
    symlink(&real, bed.path("bin/claude")).unwrap();
    let provision = bed.provision(bed.never());
    let many = futures::future::join_all((0..20).map(|_| provision.resolve(&bed.host, None))).await;
    assert!(many.into_iter().all(|found| found.unwrap() == cli(&real, "3.0.0", Source::Path)));
    assert_eq!(fs::read_to_string(bed.path("calls")).unwrap(), format!("{} --version\n", text(&real)));

    let env = fs::read_to_string(bed.path("calls.env")).unwrap();
    let mut names: Vec<&str> = env.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    names.retain(|name| !["PWD", "_", "SHLVL", "OLDPWD"].contains(name));
    names.sort_unstable();
    assert_eq!(names, ["CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "DISABLE_AUTOUPDATER", "HOME", "PATH"]);
    assert!(env.contains(&format!("HOME={}\n", text(bed.path("castra/claude/.home")))), "{env}");

    // Another file behind the same link, then another link: each is asked.
    bed.claude(bed.path("versions/a.new"), "3.0.1");
    fs::rename(bed.path("versions/a.new"), &real).unwrap();
    assert_eq!(provision.resolve(&bed.host, None).await.unwrap().version, "3.0.1");
    let other = bed.claude(bed.path("versions/b"), "3.0.2");
    symlink(&other, bed.path("bin/new")).unwrap();
    fs::rename(bed.path("bin/new"), bed.path("bin/claude")).unwrap();
    assert_eq!(provision.resolve(&bed.host, None).await.unwrap(), cli(&other, "3.0.2", Source::Path));
    assert_eq!(bed.calls(), 3);
}

/// An npm that installs version 5.0.0, or what is asked for, and keeps what it was told.
fn npm(bed: &Bed, end: &str) {
    let seen = text(bed.path("npm"));
    let body = format!(
        "echo \"$*\" >> {seen}.args; env > {seen}.env; echo 'npm http fetch GET 200' >&2; {end}\n\
         version=5.0.0; for last; do :; done; case $last in *@*@*) version=${{last##*@}};; esac\n\
         dir=\"$3/node_modules/@anthropic-ai/claude-code-linux-x64\"; mkdir -p \"$dir\"\n\
         printf '#!/bin/sh\\necho \"%s (Claude Code)\"\\n' \"$version\" > \"$dir/claude\""
    );
    script(&bed.path("bin/npm"), &body);
}

fn installs(bed: &Bed) -> Vec<String> {
    let args = fs::read_to_string(bed.path("npm.args")).unwrap_or_default();
    args.lines().map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect()
}

fn folder(bed: &Bed) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(bed.path("castra/claude"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn many_starts_install_once() {
    let bed = Bed::new();
    npm(&bed, "sleep 0.3");
    fs::create_dir_all(bed.cached(".new-left/x")).unwrap();
    fs::create_dir_all(bed.path("user")).unwrap();
    fs::write(bed.path("user/.npmrc"), "").unwrap();
    let lines: Arc<Mutex<Vec<String>>> = Arc::default();
    let sink = Arc::clone(&lines);
    let progress: Progress = Arc::new(move |line: Line| {
        sink.lock().unwrap().push(String::from_utf8_lossy(&line.text).into_owned());
    });
    let provision = bed.provision(ClaudeConfig::default());
    let starts = (0..10).map(|_| provision.resolve(&bed.host, Some(Arc::clone(&progress))));
    let found = futures::future::join_all(starts).await;
    let want = cli(&bed.cached("5.0.0"), "5.0.0", Source::Cache);
    assert!(found.into_iter().all(|found| found.unwrap() == want));
    assert_eq!(installs(&bed), ["@anthropic-ai/claude-code"]);
    assert_eq!(folder(&bed), [".home", "5.0.0"], "nothing else is left behind");
    assert_eq!(fs::metadata(bed.cached("5.0.0")).unwrap().permissions().mode() & 0o777, 0o755);

    let lines = lines.lock().unwrap().clone();
    let count = |text: &str| lines.iter().filter(|line| line.starts_with(text)).count();
    assert_eq!(
        (count("installing Claude Code with npm"), count("waiting for"), count("npm http")),
        (1, 9, 1)
    );
    assert_eq!(count(&format!("installed Claude Code 5.0.0 in {}", want.path)), 1);

    let args = fs::read_to_string(bed.path("npm.args")).unwrap();
    assert!(args.contains("--ignore-scripts --include=optional --no-global"), "{args}");
    let env = fs::read_to_string(bed.path("npm.env")).unwrap();
    for given in ["https_proxy=http://127.0.0.1:9\n", "NPM_CONFIG_REGISTRY=http://127.0.0.1:9\n"] {
        assert!(env.contains(given), "{env}");
    }
    let rc = bed.temp.path().join("user/.npmrc");
    assert!(env.contains(&format!("npm_config_userconfig={}\n", text(rc))), "{env}");
    assert!(!env.contains("ANTHROPIC_API_KEY"), "{env}");
    assert!(env.contains(&format!("HOME={}/.new-", text(bed.path("castra/claude")))), "{env}");
}

#[tokio::test]
async fn many_starts_share_a_failure_and_the_next_tries_again() {
    let bed = Bed::new();
    npm(&bed, "sleep 0.3; echo 'npm error code E404' >&2; exit 1");
    let provision = bed.provision(ClaudeConfig::default());
    let found = futures::future::join_all((0..5).map(|_| provision.resolve(&bed.host, None))).await;
    for error in found {
        let want = (ErrorCode::CliNotFound, "npm failed (exit Some(1)): npm error code E404".to_owned());
        assert_eq!(told(error.unwrap_err()), want);
    }
    assert_eq!(installs(&bed).len(), 1);
    npm(&bed, "");
    assert_eq!(provision.resolve(&bed.host, None).await.unwrap().version, "5.0.0");
    assert_eq!(folder(&bed), [".home", "5.0.0"]);
}

#[tokio::test]
async fn a_version_is_installed_listed_and_removed() {
    let bed = Bed::new();
    npm(&bed, "");
    let provision = bed.provision(ClaudeConfig { version: Some("5.1.0".into()), ..ClaudeConfig::default() });
    assert_eq!(provision.resolve(&bed.host, None).await.unwrap().version, "5.1.0");
    assert_eq!(provision.install(&bed.host, None, None).await.unwrap().version, "5.0.0");
    assert_eq!(installs(&bed), ["@anthropic-ai/claude-code@5.1.0", "@anthropic-ai/claude-code"]);
    for bad in ["../x", "-g", "1.2", "1.2.3 x", "1.2.3;x", "", "http://x"] {
        let error = provision.install(&bed.host, Some(bad), None).await.unwrap_err();
        assert_eq!(told(error).0, ErrorCode::InvalidRequest, "{bad:?}");
    }
    script(&bed.path("bin/claude"), "echo meow");

    let of_cache = |listed: Vec<Candidate>| -> Vec<(Source, Result<String, String>)> {
        listed.into_iter().map(|c| (c.source, c.cli.map(|cli| cli.version))).collect()
    };
    let listed = of_cache(provision.list(&bed.host).await.unwrap());
    let meow = format!("{} is not Claude Code: --version says \"meow\"", text(bed.path("bin/claude")));
    let cached = |version: &str| (Source::Cache, Ok(version.to_owned()));
    assert_eq!(listed, [(Source::Path, Err(meow)), cached("5.1.0"), cached("5.0.0")]);

    let used = BTreeSet::from([text(bed.cached("5.1.0"))]);
    let error = provision.remove(&bed.host, "5.1.0", &used).await.unwrap_err();
    assert_eq!(told(error).0, ErrorCode::Conflict);
    provision.remove(&bed.host, "5.0.0", &used).await.unwrap();
    assert_eq!(folder(&bed), [".home", "5.1.0"]);
    for missing in ["5.0.0", "..", ".home", "../sessions"] {
        let error = provision.remove(&bed.host, missing, &used).await.unwrap_err();
        assert_eq!(error.problem().code, ErrorCode::NotFound, "{missing}");
    }
}

#[tokio::test]
async fn another_folder_for_versions() {
    let bed = Bed::new();
    npm(&bed, "");
    fs::create_dir_all(bed.path("real")).unwrap();
    symlink(bed.path("real"), bed.path("link")).unwrap();
    let config = ClaudeConfig { install_dir: Some(bed.path("link/versions")), ..ClaudeConfig::default() };
    let found = bed.provision(config.clone()).resolve(&bed.host, None).await.unwrap();
    assert_eq!(found, cli(&bed.path("real/versions/5.0.0/claude"), "5.0.0", Source::Cache));
    assert_eq!(bed.resolve(config).await.unwrap(), found, "found again without npm");
    assert_eq!(installs(&bed).len(), 1);
}

#[tokio::test]
async fn without_npm_the_vendors_script_and_without_both_a_next_step() {
    let bed = Bed::new();
    let (code, detail) = bed.resolve(ClaudeConfig::default()).await.unwrap_err();
    assert_eq!(code, ErrorCode::CliNotFound);
    assert_eq!(detail, "Claude Code is not here, and neither npm nor curl is there to install it");

    // As the vendor's: it downloads the program below HOME and links it.
    let vendor = "mkdir -p \"$HOME/.local/bin\" \"$HOME/.local/share/claude/versions\"\n\
        printf '#!/bin/sh\\necho \"%s (Claude Code)\"\\n' \"${1:-6.0.0}\" > \"$HOME/.local/share/claude/versions/x\"\n\
        ln -s ../share/claude/versions/x \"$HOME/.local/bin/claude\"";
    script(&bed.path("vendor.sh"), vendor);
    symlink("/bin/ln", bed.path("tools/ln")).unwrap();
    let source = text(bed.path("vendor.sh"));
    script(&bed.path("bin/curl"), &format!("while [ \"$1\" != -o ]; do shift; done; cp {source} \"$2\""));
    let found = bed.resolve(ClaudeConfig::default()).await.unwrap();
    assert_eq!(found, cli(&bed.cached("6.0.0"), "6.0.0", Source::Cache));
    let pinned = ClaudeConfig { version: Some("6.1.0".into()), ..ClaudeConfig::default() };
    assert_eq!(bed.resolve(pinned).await.unwrap(), cli(&bed.cached("6.1.0"), "6.1.0", Source::Cache));
    assert_eq!(folder(&bed), [".home", "6.0.0", "6.1.0"]);
}

#[tokio::test]
#[ignore = "downloads the real CLI: 100 MB from the npm registry"]
async fn the_real_npm() {
    let bed = Bed::new();
    let env: BTreeMap<String, String> = std::env::vars()
        .filter(|(name, _)| ["PATH", "https_proxy", "NODE_EXTRA_CA_CERTS"].contains(&name.as_str()))
        .collect();
    let config = ClaudeConfig { version: Some("2.1.197".into()), ..ClaudeConfig::default() };
    let found = Provision::new(config, env).resolve(&bed.host.local, None).await.unwrap();
    assert_eq!(found, cli(&bed.cached("2.1.197"), "2.1.197", Source::Cache));
    assert_eq!(folder(&bed), [".home", "2.1.197"]);
}

//! A data folder with a daemon's and another session's belongings, and commands run inside the walls.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use castra_supervisor::host::LocalHost;
use castra_supervisor::sandbox::{Bwrap, Paths, SandboxProbe, probe, wrap};

/// Text of every file that must not be read.
pub(crate) const SECRET: &str = "a-secret-of-castra";

/// For whatever waits: far above what any machine needs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) struct Bed {
    pub(crate) temp: tempfile::TempDir,
    pub(crate) bwrap: Bwrap,
    pub(crate) paths: Paths,
    /// castra.sock and shim.sock, both answering.
    pub(crate) sockets: Vec<(PathBuf, UnixListener)>,
}

pub(crate) fn text(path: impl AsRef<Path>) -> String {
    path.as_ref().to_str().unwrap().to_owned()
}

/// The walls of this machine. Without them nothing here can be tested, and that is a failure.
pub(crate) fn walls() -> Bwrap {
    let home = tempfile::tempdir().unwrap();
    let host = LocalHost::new(home.path()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match runtime.block_on(probe(&host)).unwrap() {
        SandboxProbe::Bubblewrap(bwrap) => bwrap,
        SandboxProbe::None { reason } => panic!("no sandbox here: {reason}; apt install bubblewrap"),
    }
}

fn write(path: &Path, mode: u32, content: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

impl Bed {
    pub(crate) fn new() -> Bed {
        let temp = tempfile::tempdir().unwrap();
        let base = temp.path().canonicalize().unwrap();
        let castra = base.join("users/u/.local/share/castra");
        let user = base.join("users/u");
        for file in
            ["castra.db", "key", "sessions/own/runs/1/log/00000001.seg", "sessions/other/home/.claude.json"]
        {
            write(&castra.join(file), 0o600, SECRET);
        }
        for file in
            ["users/u/.ssh/id_ed25519", "users/u/.claude/.credentials.json", "users/v/.ssh/id_ed25519"]
        {
            write(&base.join(file), 0o600, SECRET);
        }
        for dir in ["sessions/own/work", "sessions/own/home"] {
            fs::create_dir_all(castra.join(dir)).unwrap();
        }
        write(&castra.join("claude/1.2.3/claude"), 0o755, "#!/bin/sh\necho '1.2.3 (Claude Code)'\n");
        let sockets = ["castra.sock", "sessions/own/runs/1/shim.sock"].map(|name| {
            let path = castra.join(name);
            let listener = UnixListener::bind(&path).unwrap();
            (path, listener)
        });
        let paths = Paths {
            work: text(castra.join("sessions/own/work")),
            home: text(castra.join("sessions/own/home")),
            claude: text(castra.join("claude/1.2.3/claude")),
            castra_home: text(castra),
            user_home: Some(text(user)),
            path: "/usr/local/bin:/usr/bin:/bin".into(),
            ..Paths::default()
        };
        Bed { temp, bwrap: walls(), paths, sockets: sockets.into() }
    }

    pub(crate) fn castra(&self, name: &str) -> String {
        format!("{}/{name}", self.paths.castra_home)
    }

    pub(crate) fn base(&self) -> PathBuf {
        self.temp.path().canonicalize().unwrap()
    }

    /// Every file that holds [`SECRET`].
    pub(crate) fn secrets(&self) -> Vec<String> {
        let base = text(self.base());
        let castra =
            ["castra.db", "key", "sessions/own/runs/1/log/00000001.seg", "sessions/other/home/.claude.json"];
        let homes =
            ["users/u/.ssh/id_ed25519", "users/u/.claude/.credentials.json", "users/v/.ssh/id_ed25519"];
        castra.iter().map(|f| self.castra(f)).chain(homes.iter().map(|f| format!("{base}/{f}"))).collect()
    }

    /// A command as the shim would start it. The thread that spawns it must outlive it.
    pub(crate) fn command(&self, argv: &[&str]) -> Command {
        let argv: Vec<String> = argv.iter().map(|a| (*a).to_owned()).collect();
        let wrapped = wrap(&argv, &self.bwrap, &self.paths).unwrap();
        bare(&wrapped, &self.paths.home)
    }

    /// `sh -c SCRIPT` inside, with `args` as `$1`…
    pub(crate) fn sh(&self, script: &str, args: &[&str]) -> Output {
        let argv: Vec<&str> =
            ["/bin/sh", "-c", script, "sh"].into_iter().chain(args.iter().copied()).collect();
        self.command(&argv).output().unwrap()
    }

    /// What such a script prints; it must end well.
    pub(crate) fn says(&self, script: &str, args: &[&str]) -> String {
        let output = self.sh(script, args);
        assert!(output.status.success(), "{script}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

/// A command with nothing of this process's environment.
pub(crate) fn bare(argv: &[String], home: &str) -> Command {
    let mut command = Command::new(&argv[0]);
    command.args(&argv[1..]).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", home);
    command.stdin(Stdio::null());
    command
}

/// Waits until `done`; a deadline far beyond need ends a hang.
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !done() {
        assert!(Instant::now() < end, "not within {DEADLINE:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Processes of this machine with `mark` in their environment.
pub(crate) fn marked(mark: &str) -> Vec<i32> {
    let has = |pid: &i32| {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.windows(mark.len()).any(|w| w == mark.as_bytes())
    };
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    pids.filter(has).collect()
}

/// Ends what a failed test left: by the pids that carry its own mark.
pub(crate) struct Sweep(pub(crate) String);

impl Drop for Sweep {
    fn drop(&mut self) {
        let pids: Vec<String> = marked(&self.0).iter().map(i32::to_string).collect();
        if !pids.is_empty() {
            drop(Command::new("kill").arg("-KILL").args(pids).status());
        }
    }
}

/// A process of somebody else, ended with the test however that ends.
pub(crate) struct Bystander(Child);

impl Bystander {
    pub(crate) fn new(name: &str, value: &str) -> Bystander {
        let mut command = Command::new("sleep");
        command.arg("600").env(name, value).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Bystander(command.spawn().unwrap())
    }

    pub(crate) fn pid(&self) -> i32 {
        self.0.id() as i32
    }

    pub(crate) fn lives(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

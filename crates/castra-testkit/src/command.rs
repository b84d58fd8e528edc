//! One `castra` command: with nothing of the caller's environment, and everything that it said.

use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What a command said and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    pub stdout: String,
    pub stderr: String,
    /// The exit code; minus the signal's number where one ended it.
    pub code: i32,
}

impl Output {
    /// stdout, of a command that must have succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:#?}");
        self.stdout
    }

    /// stdout as JSON, of a command that must have succeeded.
    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        let text = self.ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text:?}"))
    }
}

/// Built by `World::castra`.
#[derive(Debug)]
pub struct Castra {
    command: Command,
    stdin: Option<Vec<u8>>,
}

impl Castra {
    pub(crate) fn new(program: &Path, env: &[(String, String)], folder: PathBuf) -> Self {
        let mut command = Command::new(program);
        command.env_clear().envs(env.iter().cloned()).current_dir(folder);
        Self { command, stdin: None }
    }

    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(args);
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub fn without_env(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    pub fn folder(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// Piped into it; without this its stdin is `/dev/null`.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// Runs it to its end.
    pub fn run(mut self) -> Output {
        let stdin = self.stdin.take();
        self.command.stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut child = self.start();
        let pipe = child.stdin.take();
        let writer = stdin.zip(pipe).map(|(bytes, mut pipe)| {
            // A command that does not read it all is no failure of the test.
            std::thread::spawn(move || drop(pipe.write_all(&bytes)))
        });
        let output = child.wait_with_output().expect("castra's end");
        if let Some(writer) = writer {
            writer.join().expect("the writer of stdin");
        }
        let signal = || output.status.signal().map_or(i32::MIN, |signal| -signal);
        Output {
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            code: output.status.code().unwrap_or_else(signal),
        }
    }

    /// Starts it, with pipes for what it says.
    pub fn spawn(mut self) -> Child {
        self.command.stdin(Stdio::null());
        self.start()
    }

    fn start(&mut self) -> Child {
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        self.command.spawn().unwrap_or_else(|error| panic!("{:?}: {error}", self.command.get_program()))
    }
}

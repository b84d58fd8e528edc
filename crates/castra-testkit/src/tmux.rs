//! A terminal for tests: tmux, as a person's terminal emulator and as an independent opinion of what is on a screen.
//! A server of its own for each world, which ends with it.

use crate::wait::{DEADLINE, wait_for, wait_until};
use crate::world::World;
use std::process::{Command, Output, Stdio};

/// A window of a tmux server that belongs to one world.
pub struct Terminal<'w> {
    world: &'w World,
    name: &'static str,
}

impl<'w> Terminal<'w> {
    /// A window of this size that runs a shell script; `$CASTRA` is the program. What it leaves on the screen stays.
    #[track_caller]
    pub fn run(world: &'w World, name: &'static str, (rows, cols): (u16, u16), script: &str) -> Self {
        let (rows, cols) = (rows.to_string(), cols.to_string());
        let program = world.program().display().to_string();
        let mut command = tmux(world, "people");
        // A server that has no session for a moment stays.
        command.args(["-f", "/dev/null", "start-server", ";", "set-option", "-g", "exit-empty", "off", ";"]);
        // Its own tmux is another one than ours.
        command.args(["new-session", "-d", "-s", name, "-x", &cols, "-y", &rows]);
        command.args([
            "-e",
            &format!("CASTRA={program}"),
            "env",
            "-u",
            "TMUX",
            "-u",
            "TMUX_PANE",
            "sh",
            "-c",
        ]);
        command.arg(format!("{script}\nexec sleep 1000"));
        succeed(command);
        Self { world, name }
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let mut command = tmux(self.world, "people");
        command.args(arguments);
        succeed(command)
    }

    fn target(&self) -> String {
        format!("={}:", self.name)
    }

    /// The rows that are shown.
    pub fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-t", &self.target()])
    }

    /// All that one can scroll back to, and the rows.
    pub fn history(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-S", "-", "-t", &self.target()])
    }

    /// tmux's own account of its pane, e.g. `#{alternate_on}`.
    pub fn tells(&self, format: &str) -> String {
        self.tmux(&["display-message", "-p", "-t", &self.target(), format]).trim_end().to_owned()
    }

    /// Keys by tmux's names; other words are text.
    pub fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys", "-t", &self.target()], keys].concat());
    }

    /// A line and Enter, once the line is there: claude takes an Enter that comes with it for part of a paste.
    #[track_caller]
    pub fn enter(&self, line: &str) {
        self.keys(&[line]);
        self.until(line);
        self.keys(&["Enter"]);
    }

    pub fn resize(&self, rows: u16, cols: u16) {
        let (rows, cols) = (rows.to_string(), cols.to_string());
        self.tmux(&["resize-window", "-t", &self.target(), "-x", &cols, "-y", &rows]);
    }

    /// The screen, when it shows this.
    #[track_caller]
    pub fn until(&self, what: &str) -> String {
        self.until_some(what, |screen| screen.contains(what).then(|| screen.to_owned()))
    }

    #[track_caller]
    pub fn until_some<T>(&self, what: &str, mut look: impl FnMut(&str) -> Option<T>) -> T {
        let began = std::time::Instant::now();
        let mut last = String::new();
        let mut look = || {
            last = self.screen();
            // Said before the deadline ends the test without a picture.
            assert!(began.elapsed() < DEADLINE, "{what}: never in\n{last}");
            look(&last)
        };
        wait_for(what, &mut look, DEADLINE * 2)
    }

    /// Ends it as a closed window would: everything in it is hung up on.
    pub fn close(self) {
        self.tmux(&["kill-session", "-t", &format!("={}", self.name)]);
    }
}

/// A command to the tmux server that commands of this world find by themselves: `castra … --tmux` starts it.
pub fn default_tmux(world: &World, arguments: &[&str]) -> Output {
    let mut command = tmux(world, "default");
    command.args(arguments).stdin(Stdio::null());
    command.output().expect("tmux")
}

/// Waits until that server has, or has not, a session of this name.
#[track_caller]
pub fn until_tmux_session(world: &World, name: &str, there: bool) {
    let what = format!("tmux session {name} {}", if there { "to be there" } else { "to be gone" });
    let target = format!("={name}");
    wait_until(
        &what,
        || default_tmux(world, &["has-session", "-t", &target]).status.success() == there,
        DEADLINE,
    );
}

fn tmux(world: &World, server: &str) -> Command {
    let mut command = Command::new("tmux");
    command.args(["-L", server]).env_clear().envs(world.env()).current_dir(world.folder());
    command.env("TMUX_TMPDIR", world.root()).env("TERM", "xterm-256color");
    command
}

#[track_caller]
fn succeed(mut command: Command) -> String {
    let output = command.stdin(Stdio::null()).output().expect("tmux: `./test` installs it");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

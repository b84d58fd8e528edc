//! A daemon of one world: started, ready, killed, started again on the same port.

use crate::http::Http;
use crate::proc::{self, Process};
use crate::session::Session;
use crate::task::Task;
use crate::wait::{DEADLINE, wait_for, wait_until};
use crate::world::World;
use castra_proto::api::CreatedToken;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

/// `castra up`, in the foreground of this test.
pub struct Daemon<'w> {
    world: &'w World,
    child: Child,
    process: Process,
    addr: SocketAddr,
    token: String,
}

impl<'w> Daemon<'w> {
    pub(crate) fn start(world: &'w World) -> Self {
        let (child, process, addr) = launch(world, ([127, 0, 0, 1], 0).into());
        let token = world.cli(["token", "create", "--scope", "admin"]).ok().trim().to_owned();
        Self { world, child, process, addr, token }
    }

    pub fn pid(&self) -> i32 {
        self.process.pid
    }

    pub fn process(&self) -> Process {
        self.process
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// An admin's view.
    pub fn http(&self) -> Http {
        self.http_as(&self.token)
    }

    pub fn http_as(&self, token: &str) -> Http {
        Http::new(self.addr, token, self.world.runtime().handle().clone())
    }

    /// A new token.
    #[track_caller]
    pub fn token(&self, request: &Value) -> CreatedToken {
        self.http().post("/api/v1/tokens", request).expect(201)
    }

    /// A session that talks to the world's model; `fields` of a SessionSpec.
    #[track_caller]
    pub fn session(&self, fields: Value) -> Session {
        Session::create(self.http(), &self.world.spec(fields))
    }

    /// A task whose session talks to the world's model; `fields` of a TaskSpec.
    #[track_caller]
    pub fn task(&self, mut fields: Value) -> Task {
        let session = fields["session"].take();
        fields["session"] = self.world.spec(if session.is_null() { json!({}) } else { session });
        Task::create(self.http(), &fields)
    }

    /// Ends it as the kernel would; returns when it is gone.
    pub fn kill9(&mut self) {
        assert!(self.process.kill9(), "the daemon had ended already");
        self.child.wait().expect("the daemon's end");
    }

    /// Another one for the same data folder, on the same address. The last one must be gone.
    pub fn start_again(&mut self) {
        (self.child, self.process, self.addr) = launch(self.world, self.addr);
    }

    /// The same from another executable, with more in its environment.
    pub fn start_again_as(&mut self, program: &Path, env: &[(&str, &str)]) {
        let child = spawn(self.world, program, env, self.addr);
        (self.child, self.process, self.addr) = ready(self.world, child);
    }

    /// The same, to die where `CASTRA_FAILPOINT` says (the feature `failpoints`), perhaps before it is ready.
    pub fn start_doomed(&mut self, failpoint: &str) {
        let mut child =
            spawn(self.world, self.world.program(), &[("CASTRA_FAILPOINT", failpoint)], self.addr);
        let pid = pid_of(&child);
        // A child that ended and is not waited for keeps its entry in /proc.
        self.process = proc::process(pid).unwrap_or(Process { pid, start_time: 0 });
        let up = || child.try_wait().expect("its state").is_some() || said_ready(self.world, pid).is_some();
        wait_until("the daemon to be ready or dead", up, DEADLINE);
        self.child = child;
    }

    /// Whether it has ended.
    pub fn is_over(&mut self) -> bool {
        self.child.try_wait().expect("the daemon's state").is_some()
    }

    /// Waits for an end that is not this test's doing: its exit code, or minus the signal.
    #[track_caller]
    pub fn wait_over(&mut self) -> i32 {
        wait_until("the daemon to end", || self.child.try_wait().expect("its state").is_some(), DEADLINE);
        code(self.child.wait().expect("the daemon's end"))
    }

    /// Ends it in order, and starts another one.
    pub fn restart(&mut self) {
        let code = self.stop();
        assert_eq!(code, 0, "a daemon that is asked to end does so without an error");
        self.start_again();
    }

    /// SIGTERM; its exit code, or minus the signal.
    pub fn stop(&mut self) -> i32 {
        assert!(self.process.signal(Signal::TERM), "the daemon had ended already");
        code(self.child.wait().expect("the daemon's end"))
    }
}

fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| status.signal().map_or(i32::MIN, |signal| -signal))
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        if self.process.kill9() {
            // Reaped, so that the pid is free; the world's end sees to everything else.
            let _ = self.child.wait();
        }
    }
}

fn launch(world: &World, listen: SocketAddr) -> (Child, Process, SocketAddr) {
    ready(world, spawn(world, world.program(), &[], listen))
}

fn spawn(world: &World, program: &Path, env: &[(&str, &str)], listen: SocketAddr) -> Child {
    let logs = world.home().join("log");
    std::fs::create_dir_all(&logs).expect("a folder for logs");
    let log = |name: &str| File::options().create(true).append(true).open(logs.join(name)).expect("a log");
    // The address is read from what it says: a pipe that nobody reads on would fill up.
    Command::new(program)
        .args(["up", "--listen", &listen.to_string()])
        .env_clear()
        .envs(world.env())
        .envs(env.iter().copied())
        .current_dir(world.folder())
        .stdin(Stdio::null())
        .stdout(log("daemon.out"))
        .stderr(log("castra.log"))
        .spawn()
        .expect("castra up")
}

fn ready(world: &World, mut child: Child) -> (Child, Process, SocketAddr) {
    let pid = pid_of(&child);
    let addr = wait_for(
        "the daemon to be ready",
        || {
            if let Ok(Some(status)) = child.try_wait() {
                let log = world.home().join("log/castra.log");
                let said = std::fs::read_to_string(log).unwrap_or_default();
                panic!("the daemon ended at its start, {status}: {said}");
            }
            said_ready(world, pid)
        },
        DEADLINE,
    );
    (child, proc::process(pid).expect("a daemon that is ready runs"), addr)
}

fn pid_of(child: &Child) -> i32 {
    i32::try_from(child.id()).expect("a pid")
}

fn said_ready(world: &World, pid: i32) -> Option<SocketAddr> {
    let out = std::fs::read_to_string(world.home().join("log/daemon.out")).unwrap_or_default();
    ready_line(&out, pid)
}

/// `castra is up (pid N) at … and http://ADDRESS`
fn ready_line(out: &str, pid: i32) -> Option<SocketAddr> {
    let line = out.lines().find(|line| line.contains(&format!("(pid {pid})")))?;
    let (_, url) = line.rsplit_once("http://")?;
    url.trim_end_matches('/').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_the_newest_daemon_counts() {
        let out = "castra is up (pid 7) at /s and http://127.0.0.1:71\n\
                   castra is up (pid 17) at /s and http://127.0.0.1:72/\n";
        assert_eq!(ready_line(out, 17), Some(([127, 0, 0, 1], 72).into()));
        assert_eq!(ready_line(out, 1), None);
    }
}

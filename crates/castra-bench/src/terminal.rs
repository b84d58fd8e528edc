//! Terminals: a flood through the WebSocket beside the same program on a bare PTY and behind ttyd, a key and its echo,
//! a viewer that stalls, a session at which nothing happens.

use crate::proc;
use crate::report::{Row, at_least, at_most, fact, median, progress, quantile, row};
use crate::rig::{Programs, Rig};
use crate::socket::Seat;
use crate::ttyd::{self, Ttyd};
use anyhow::{Context as _, Result, bail};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::json;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// Of one flood.
const FLOOD: u64 = 64_000_000;
const ROUNDS: usize = 5;
const KEYS: usize = 2000;
/// For which nothing happens.
const IDLE: Duration = Duration::from_secs(10);
/// The keys with which flood-claude begins one: lines that scroll by, screens that are drawn over.
const SCROLLED: char = 'F';
const DRAWN: char = 'R';
/// What flood-claude says behind a flood.
const OVER: &[u8] = b"that was all";

pub(crate) fn run(programs: &Programs) -> Result<Vec<Row>> {
    let world = programs.world();
    let rig = Rig::up(&world);
    let session = rig.daemon.session(json!({"mode": "terminal", "sandbox": "off"}));
    session.wait_idle();
    let mut seat = sit_down(&rig, &session.id)?;
    let mut bare = Bare::start(&programs.flood)?;
    let (mut rows, ttyd) = match beside(&programs.flood) {
        Ok(ttyd) => (Vec::new(), Some(ttyd)),
        Err(error) => {
            progress(&format!("  ttyd: {error:#}"));
            (vec![row("terminal", "castra / ttyd", "ttyd cannot be had here".into(), "", None)], None)
        }
    };
    let (ttyd, mut other) = ttyd.unzip();
    rows.extend(floods(&mut seat, &mut bare, other.as_mut(), &rig)?);
    rows.extend(echoes(&mut seat, &mut bare, other.as_mut())?);
    drop((other, ttyd));
    rows.extend(idle(&mut seat, &rig)?);
    rows.extend(stall(seat, &rig, &session.id)?);
    session.act("stop");
    Ok(rows)
}

fn sit_down(rig: &Rig<'_>, session: &str) -> Result<Seat> {
    let path = format!("/api/v1/sessions/{session}/terminal/ws");
    Seat::take(rig.door.addr, &path, &format!("authorization: Bearer {}\r\n", rig.door.token))
}

/// The same program behind ttyd, and a seat at it.
fn beside(program: &Path) -> Result<(Ttyd, Seat)> {
    let ttyd = Ttyd::start(program)?;
    let seat = Seat::take(ttyd.addr, ttyd::PATH, "")?;
    Ok((ttyd, seat))
}

/// The program on a PTY of its own, with nobody between.
struct Bare {
    master: File,
    child: Child,
}

impl Bare {
    fn start(program: &Path) -> Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        tcsetwinsize(&master, Winsize { ws_row: 50, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 })?;
        let name = ptsname(&master, Vec::new())?;
        let slave = || File::options().read(true).write(true).open(name.to_str().unwrap_or_default());
        let mut command = Command::new(program);
        command.stdin(slave()?).stdout(slave()?).stderr(slave()?);
        let child = command.spawn().context("the bare program")?;
        Ok(Self { master: master.into(), child })
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Something that keys go into and output comes out of.
trait Screen {
    fn keys(&mut self, keys: &str) -> Result<()>;
    fn output(&mut self, take: &mut dyn FnMut(&[u8])) -> Result<()>;
}

impl Screen for Seat {
    fn keys(&mut self, keys: &str) -> Result<()> {
        self.send(format!("0{keys}").as_bytes())
    }

    fn output(&mut self, take: &mut dyn FnMut(&[u8])) -> Result<()> {
        take(Seat::output(self)?);
        Ok(())
    }
}

impl Screen for Bare {
    fn keys(&mut self, keys: &str) -> Result<()> {
        Ok(self.master.write_all(keys.as_bytes())?)
    }

    fn output(&mut self, take: &mut dyn FnMut(&[u8])) -> Result<()> {
        let mut bytes = [0; 1 << 16];
        let read = self.master.read(&mut bytes)?;
        if read == 0 {
            bail!("the bare program is gone");
        }
        take(&bytes[..read]);
        Ok(())
    }
}

/// Takes output until `needle` was in it; how much came.
fn until(screen: &mut dyn Screen, needle: &[u8]) -> Result<u64> {
    let (mut tail, mut came, mut found) = (Vec::new(), 0, false);
    while !found {
        screen.output(&mut |bytes| {
            came += bytes.len() as u64;
            tail.extend_from_slice(bytes);
            found = memchr::memmem::find(&tail, needle).is_some();
            let keep = tail.len().saturating_sub(needle.len());
            tail.drain(..keep);
        })?;
    }
    Ok(came)
}

/// Seconds of a flood, and the bytes that came of it.
fn flood(screen: &mut dyn Screen) -> Result<(f64, u64)> {
    pour(screen, SCROLLED)
}

fn pour(screen: &mut dyn Screen, kind: char) -> Result<(f64, u64)> {
    let began = Instant::now();
    screen.keys(&format!("{kind}{FLOOD}\r"))?;
    let came = until(screen, OVER)?;
    Ok((began.elapsed().as_secs_f64(), came))
}

fn floods(seat: &mut Seat, bare: &mut Bare, mut ttyd: Option<&mut Seat>, rig: &Rig<'_>) -> Result<Vec<Row>> {
    progress("terminal: floods");
    let pids = rig.castras();
    let (mut ratios, mut rates, mut shares) = (Vec::new(), Vec::new(), Vec::new());
    let (mut against, mut theirs, mut cpu, mut drawn) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (floor, all) = flood(bare)?;
        let used = proc::all(&pids, proc::cpu_us);
        let (took, came) = flood(seat)?;
        cpu.push((proc::all(&pids, proc::cpu_us) - used) / 1e3 / (FLOOD as f64 / 1e6));
        ratios.push(floor / took);
        rates.push(FLOOD as f64 / 1e6 / floor);
        shares.push(came as f64 / all as f64);
        if let Some(ttyd) = &mut ttyd {
            let (other, _) = flood(*ttyd)?;
            against.push(other / took);
            theirs.push(floor / other);
        }
        let (floor, _) = pour(bare, DRAWN)?;
        drawn.push(floor / pour(seat, DRAWN)?.0);
    }
    let mut rows = vec![
        fact("terminal", "a flood on a bare PTY", median(&rates), "MB/s"),
        at_least("terminal", "the same through the WebSocket", median(&ratios), 0.9, "x", "≥ 0.9 x"),
        fact("terminal", "of it sent to the viewer, the rest as fresh screens", median(&shares), "x"),
        fact("terminal", "CPU of daemon, shim and guard for each MB", median(&cpu), "ms"),
        fact(
            "terminal",
            "a flood of screens drawn over each other, WebSocket / bare PTY",
            median(&drawn),
            "x",
        ),
    ];
    if ttyd.is_some() {
        rows.push(fact("terminal", "the same flood through ttyd 1.7.7", median(&theirs), "x"));
        rows.push(at_least("terminal", "a flood, castra / ttyd", median(&against), 0.9, "x", "≥ 0.9 x"));
    }
    Ok(rows)
}

fn echo(screen: &mut dyn Screen) -> Result<Vec<f64>> {
    let mut took = Vec::with_capacity(KEYS);
    for n in 0..KEYS {
        let key = char::from(b'a' + (n % 5) as u8).to_string();
        let began = Instant::now();
        screen.keys(&key)?;
        until(screen, key.as_bytes())?;
        took.push(began.elapsed().as_secs_f64() * 1e3);
    }
    Ok(took)
}

fn echoes(seat: &mut Seat, bare: &mut Bare, ttyd: Option<&mut Seat>) -> Result<Vec<Row>> {
    progress("terminal: keys");
    let floor = echo(bare)?;
    let took = echo(seat)?;
    let mut rows = vec![
        fact("terminal", "a key and its echo on a bare PTY, p50", median(&floor), "ms"),
        at_most("terminal", "the same through the WebSocket, p50", median(&took), 0.3, "ms", "< 0.3 ms"),
        fact("terminal", "p99", quantile(&took, 0.99), "ms"),
    ];
    if let Some(ttyd) = ttyd {
        let other = echo(ttyd)?;
        rows.push(fact("terminal", "a key and its echo through ttyd, p50", median(&other), "ms"));
        rows.push(fact("terminal", "a key's echo, castra / ttyd, p50", median(&took) / median(&other), "x"));
    }
    Ok(rows)
}

fn idle(seat: &mut Seat, rig: &Rig<'_>) -> Result<Vec<Row>> {
    progress("terminal: silence");
    let pids = rig.castras();
    let (before, ran) = (seat.received, proc::threads_ns(&pids));
    let silent = seat.is_silent_for(IDLE)?;
    let ran = proc::ran_us(&ran, &proc::threads_ns(&pids)) / IDLE.as_secs_f64() / 1e4;
    if !silent {
        seat.output()?;
    }
    Ok(vec![
        at_most(
            "terminal",
            "an idle session's viewer is sent",
            (seat.received - before) as f64,
            0.0,
            "bytes",
            "nothing",
        ),
        fact("terminal", "idle CPU of daemon, shim and guard", ran, "% of a core"),
    ])
}

/// The most that the daemon holds during a flood, with one more viewer that reads nothing of it.
fn stall(mut seat: Seat, rig: &Rig<'_>, session: &str) -> Result<Vec<Row>> {
    progress("terminal: a viewer that stalls");
    let pid = rig.daemon_pid();
    let peak = |seat: &mut Seat| -> Result<f64> {
        let before = proc::rss_mb(pid)?;
        proc::forget_peak(pid)?;
        flood(seat)?;
        Ok(proc::peak_mb(pid)? - before)
    };
    // Pages that a first flood touches are no viewer's.
    peak(&mut seat)?;
    let without = peak(&mut seat)?;
    let stalled = sit_down(rig, session)?;
    let with = peak(&mut seat)?;
    drop(stalled);
    Ok(vec![at_most(
        "terminal",
        "a viewer that stalls through a flood of 64 MB: peak growth more than without",
        (with - without).max(0.0),
        4.0,
        "MB",
        "≤ 4 MB",
    )])
}

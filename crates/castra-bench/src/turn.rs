//! A turn over HTTP: what castra adds to the same fake driven directly and to the two syncs that durability costs.

use crate::proc::written;
use crate::report::{Row, at_most, fact, progress, quantile, row};
use crate::rig::{Programs, Rig};
use crate::wire::Client;
use anyhow::{Context as _, Result};
use rustix::process::Signal;
use serde_json::json;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

/// Blocks of the two subjects take turns.
const BLOCKS: usize = 20;
const TURNS: usize = 100;
/// Turns under strace.
const TRACED: usize = 200;

pub(crate) fn run(programs: &Programs) -> Result<Vec<Row>> {
    let world = programs.world();
    let rig = Rig::up(&world);
    let session = rig.session();
    let mut client = rig.client()?;
    let mut direct = Direct::start(&programs.flood)?;
    for _ in 0..TURNS {
        client.turn(&session.id, "warm")?;
        direct.turn()?;
    }
    let before = written(rig.daemon_pid());
    for _ in 0..TURNS {
        client.turn(&session.id, "weigh")?;
    }
    let weight = (written(rig.daemon_pid()) - before) / TURNS as f64;
    let mut disk = Disk::open(&world.home(), (weight / 2.0) as usize)?;

    let (mut castra, mut floor, mut bare, mut syncs) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for block in 1..=BLOCKS {
        if block % 5 == 1 {
            progress(&format!("turn: block {block} of {BLOCKS}"));
        }
        for _ in 0..TURNS {
            let began = Instant::now();
            client.turn(&session.id, "measure")?;
            castra.push(ms(began));
        }
        for _ in 0..TURNS {
            let began = Instant::now();
            disk.sync()?;
            let sync = ms(began);
            direct.turn()?;
            bare.push(ms(began) - sync);
            syncs.push(sync);
            disk.sync()?;
            floor.push(ms(began));
        }
    }
    let added = |share: f64| quantile(&castra, share) - quantile(&floor, share);
    let mut rows = vec![
        fact("turn", "disk, bytes of a turn", weight / 1000.0, "kB"),
        fact("turn", "one sync of half of that, p50", quantile(&syncs, 0.5), "ms"),
        fact("turn", "the fake directly, p50", quantile(&bare, 0.5), "ms"),
        fact("turn", "floor: two syncs and the fake, p50", quantile(&floor, 0.5), "ms"),
        fact("turn", "floor, p99", quantile(&floor, 0.99), "ms"),
        fact("turn", "castra over HTTP, p50", quantile(&castra, 0.5), "ms"),
        fact("turn", "castra over HTTP, p99", quantile(&castra, 0.99), "ms"),
        at_most("turn", "castra's addition, p50", added(0.5), 0.2, "ms", "≤ 0.2 ms"),
        at_most("turn", "castra's addition, p99", added(0.99), 1.0, "ms", "≤ 1 ms"),
    ];
    rows.push(match traced(&rig, &mut client, &session.id) {
        Ok(each) => at_most("turn", "syncs of the daemon for each turn", each, 2.05, "", "≤ 2"),
        Err(error) => {
            row("turn", "syncs of the daemon for each turn", format!("not measured: {error:#}"), "≤ 2", None)
        }
    });
    Ok(rows)
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// The fake without anything between.
struct Direct {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Direct {
    fn start(fake: &Path) -> Result<Self> {
        let mut child = Command::new(fake).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdin = child.stdin.take().context("stdin")?;
        let stdout = BufReader::with_capacity(64 << 10, child.stdout.take().context("stdout")?);
        Ok(Self { child, stdin, stdout })
    }

    fn turn(&mut self) -> Result<()> {
        let message = json!({"type": "user", "message": {"role": "user", "content": "hello"},
            "uuid": "1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b", "session_id": "", "parent_tool_use_id": null});
        self.stdin.write_all(format!("{message}\n").as_bytes())?;
        let mut line = Vec::new();
        loop {
            line.clear();
            self.stdout.read_until(b'\n', &mut line)?;
            if memchr::memmem::find(&line, b"\"state\":\"idle\"").is_some() {
                return Ok(());
            }
        }
    }
}

impl Drop for Direct {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes and syncs as a write-ahead log does: onwards, and from the start again when it is full.
struct Disk {
    file: File,
    at: u64,
    bytes: Vec<u8>,
}

/// Of castra's own write-ahead log, before it begins anew.
const LOG: u64 = 16 << 20;

impl Disk {
    fn open(folder: &Path, bytes: usize) -> Result<Self> {
        let file = File::create(folder.join("bench.sync"))?;
        file.write_all_at(&vec![0; LOG as usize], 0)?;
        file.sync_all()?;
        Ok(Self { file, at: 0, bytes: vec![7; bytes.clamp(4096, 1 << 20)] })
    }

    fn sync(&mut self) -> Result<()> {
        self.file.write_all_at(&self.bytes, self.at)?;
        self.file.sync_data()?;
        self.at = (self.at + self.bytes.len() as u64) % (LOG - self.bytes.len() as u64);
        Ok(())
    }
}

/// Counts by strace: the only witness that cannot be argued with.
fn traced(rig: &Rig<'_>, client: &mut Client, session: &str) -> Result<f64> {
    progress(&format!("turn: {TRACED} turns under strace"));
    let out = rig.world.root().join("strace.out");
    let mut strace = Command::new("strace")
        .args(["-f", "-q", "-e", "trace=fsync,fdatasync", "-p", &rig.daemon_pid().to_string(), "-o"])
        .arg(&out)
        .stderr(Stdio::null())
        .spawn()
        .context("strace")?;
    let lines = || std::fs::read_to_string(&out).unwrap_or_default().matches("sync(").count();
    // It has attached when it sees the first one.
    let end = Instant::now() + castra_testkit::DEADLINE;
    while lines() == 0 && Instant::now() < end {
        client.turn(session, "seen yet?")?;
    }
    let before = lines();
    for _ in 0..TRACED {
        client.turn(session, "count")?;
    }
    let after = lines();
    let pid = rustix::process::Pid::from_child(&strace);
    rustix::process::kill_process(pid, Signal::INT)?;
    strace.wait()?;
    Ok((after - before) as f64 / TRACED as f64)
}

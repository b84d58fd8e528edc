//! What a driver pays for each line, without storage or HTTP: castra's decoder, the floor, the official SDK.

use crate::report::{Row, at_least, at_most, fact, median, progress};
use crate::rig::Programs;
use crate::venv::Venv;
use anyhow::{Context as _, Result, bail};
use bytes::{Bytes, BytesMut};
use castra_claude::decode::Decoder;
use castra_claude::line::{RecordIn, StreamIn};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;
use tokio::io::AsyncReadExt as _;

/// Of the SDK that is compared with.
const SDK: &str = "claude-agent-sdk==0.2.186";
const ROUNDS: usize = 3;
const EVENTS: usize = 400_000;
/// The SDK takes ten times as long for each.
const EVENTS_SDK: usize = 60_000;
/// As the shim reads.
const READ: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Subject {
    /// Reads and forgets: how fast the fake is.
    Drain,
    /// A `serde_json::Value` for each line.
    Floor,
    /// castra-claude's decoder.
    Castra,
}

/// What one subject says of itself.
#[derive(Debug, Serialize, Deserialize)]
struct Cost {
    events: f64,
    cpu_us: f64,
    wall_us: f64,
}

pub(crate) fn run(programs: &Programs) -> Result<Vec<Row>> {
    let python = python()?;
    let mut rows = Vec::new();
    for (kind, what) in [("deltas", "text deltas of 242 B"), ("events", "messages of 300 B")] {
        let mut costs: [Vec<f64>; 3] = Default::default();
        let mut speed = Vec::new();
        for round in 1..=ROUNDS {
            progress(&format!("ingest, {what}: round {round} of {ROUNDS}"));
            let prompt = |count: usize| format!("{kind} {count} 300");
            let subject = |subject: &str| {
                let mut command = Command::new(std::env::current_exe()?);
                command.args(["subject", subject]).arg(&programs.flood).arg(prompt(EVENTS));
                cost(&mut command, EVENTS)
            };
            let drained = subject("drain")?;
            speed.push(drained.events / drained.wall_us);
            for (index, name) in ["floor", "castra"].into_iter().enumerate() {
                let cost = subject(name)?;
                costs[index].push(cost.cpu_us / cost.events);
            }
            let mut sdk = Command::new(&python);
            sdk.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/peers/py_sdk.py"));
            sdk.arg(&programs.flood).arg(prompt(EVENTS_SDK));
            let cost = cost(&mut sdk, EVENTS_SDK)?;
            costs[2].push(cost.cpu_us / cost.events);
        }
        let [floor, castra, sdk] = costs.map(|costs| median(&costs));
        if kind == "deltas" {
            rows.push(at_least(
                "ingest",
                "the fake, into a reader that forgets",
                median(&speed),
                2.0,
                "M lines/s",
                "≥ 2 M",
            ));
        }
        rows.push(fact("ingest", format!("{what}: floor, a `Value` a line"), floor, "µs"));
        rows.push(fact("ingest", format!("{what}: castra's decoder"), castra, "µs"));
        rows.push(fact("ingest", format!("{what}: Python SDK"), sdk, "µs"));
        rows.push(at_most("ingest", format!("{what}: castra / floor"), castra / floor, 2.0, "x", "≤ 2 x"));
        rows.push(at_most(
            "ingest",
            format!("{what}: castra / Python SDK"),
            castra / sdk,
            0.2,
            "x",
            "≤ 0.2 x",
        ));
    }
    Ok(rows)
}

fn cost(command: &mut Command, events: usize) -> Result<Cost> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        bail!("{command:?}: {}", output.status);
    }
    let cost: Cost = serde_json::from_slice(&output.stdout)?;
    if cost.events < events as f64 {
        bail!("{command:?} saw {} of {events} events", cost.events);
    }
    Ok(cost)
}

/// A Python that has the SDK.
fn python() -> Result<PathBuf> {
    let venv = Venv::find()?;
    if venv.says("import claude_agent_sdk").is_none() {
        venv.install(SDK, &[])?;
    }
    Ok(venv.python())
}

/// One subject, in a process of its own. Prints its cost.
pub(crate) fn subject(subject: Subject, fake: &Path, prompt: &str) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let cost = runtime.block_on(drive(subject, fake, prompt))?;
    println!("{}", serde_json::to_string(&cost)?);
    Ok(())
}

fn cpu_us() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    now.tv_sec as f64 * 1e6 + now.tv_nsec as f64 / 1e3
}

async fn drive(subject: Subject, fake: &Path, prompt: &str) -> Result<Cost> {
    let mut child = tokio::process::Command::new(fake);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let message = json!({"type": "user", "message": {"role": "user", "content": prompt},
        "uuid": "1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b", "session_id": "", "parent_tool_use_id": null});
    let mut stdin = child.stdin.take().context("stdin")?;
    let mut stdout = child.stdout.take().context("stdout")?;
    let (began, used) = (Instant::now(), cpu_us());
    tokio::io::AsyncWriteExt::write_all(&mut stdin, format!("{message}\n").as_bytes()).await?;
    let mut driver = Driver {
        subject,
        events: 0,
        over: false,
        lines: BytesMut::new(),
        decoder: Decoder::new(),
        seq: 0,
        offset: 0,
    };
    let mut buffer = BytesMut::new();
    while !driver.over {
        buffer.reserve(READ);
        if stdout.read_buf(&mut buffer).await? == 0 {
            bail!("the fake ended");
        }
        driver.take(buffer.split().freeze())?;
    }
    let (cpu_us, wall_us) = (cpu_us() - used, began.elapsed().as_secs_f64() * 1e6);
    Ok(Cost { events: driver.events as f64, cpu_us, wall_us })
}

struct Driver {
    subject: Subject,
    events: u64,
    over: bool,
    lines: BytesMut,
    decoder: Decoder,
    seq: u64,
    offset: u64,
}

const RESULT: &[u8] = br#"{"type":"result""#;

impl Driver {
    fn take(&mut self, bytes: Bytes) -> Result<()> {
        match self.subject {
            Subject::Drain => {
                self.events += memchr::memchr_iter(b'\n', &bytes).count() as u64;
                // The last piece of a turn holds its result.
                self.over = memchr::memmem::rfind(&bytes, RESULT).is_some();
            }
            Subject::Floor => {
                self.lines.extend_from_slice(&bytes);
                while let Some(end) = memchr::memchr(b'\n', &self.lines) {
                    let line = self.lines.split_to(end + 1);
                    let value: Value = serde_json::from_slice(&line)?;
                    self.events += 1;
                    self.over |= std::hint::black_box(value)["type"] == "result";
                }
            }
            Subject::Castra => {
                // Deltas are state and no lines of their own: counted where they are cut.
                self.events += memchr::memchr_iter(b'\n', &bytes).count() as u64;
                self.seq += 1;
                let offset = self.offset;
                self.offset += bytes.len() as u64;
                let mut out = Vec::new();
                let record = RecordIn { seq: self.seq, at: self.seq, stream: StreamIn::Out, offset, bytes };
                self.decoder.step(record, &mut out);
                self.over |= out.iter().any(|line| line.kind.as_str() == "result");
                std::hint::black_box((out, self.decoder.open()));
            }
        }
        Ok(())
    }
}

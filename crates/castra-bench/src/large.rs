//! Large lines, much in all, and a viewer that stalls: what they cost in memory.

use crate::proc::{forget_peak, peak_mb, rss_mb};
use crate::report::{Row, at_most, fact, progress, row};
use crate::rig::{Programs, Rig, result_seq};
use crate::wire::{Viewer, subscribe};
use anyhow::{Result, bail};
use std::io::Read as _;

const MB: usize = 1_000_000;
/// Of a flooded delta: 1 GB in all.
const DELTA: usize = 242;

/// Daemon and shim from here on.
struct Peak {
    daemon: (i32, f64),
    shim: (i32, f64),
}

impl Peak {
    fn begin(rig: &Rig<'_>) -> Result<Self> {
        let of = |pid: i32| -> Result<(i32, f64)> {
            forget_peak(pid)?;
            Ok((pid, rss_mb(pid)?))
        };
        Ok(Self { daemon: of(rig.daemon_pid())?, shim: of(rig.heaviest_shim()?)? })
    }

    fn growth(&self) -> Result<f64> {
        let of = |(pid, before): (i32, f64)| Ok::<f64, anyhow::Error>((peak_mb(pid)? - before).max(0.0));
        Ok(of(self.daemon)? + of(self.shim)?)
    }
}

pub(crate) fn run(programs: &Programs) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for viewers in [0, 1] {
        progress(&format!("large: a line of 10 MB, {viewers} viewers"));
        let world = programs.world();
        let rig = Rig::up(&world);
        let session = rig.session();
        let mut client = rig.client()?;
        let before = result_seq(&client.turn(&session.id, "hello")?)?;
        let viewer = (viewers > 0).then(|| Viewer::open(&rig.door, &session.id, before)).transpose()?;
        let peak = Peak::begin(&rig)?;
        let last = result_seq(&client.turn(&session.id, &format!("line {}", 10 * MB))?)?;
        viewer.iter().try_for_each(|viewer| viewer.until(last))?;
        let what = format!("a line of 10 MB, {viewers} viewers: peak growth of daemon and shim");
        rows.push(at_most("large", what, peak.growth()?, 30.0, "MB", "≤ 3 x its size"));
        if viewers == 0 {
            rows.extend(huge(&rig, &session.id)?);
        }
    }
    rows.extend(much(programs)?);
    rows.extend(stalled(programs)?);
    Ok(rows)
}

/// 64 MB in one line, and the session goes on.
fn huge(rig: &Rig<'_>, session: &str) -> Result<Vec<Row>> {
    progress("large: a line of 64 MB");
    let mut client = rig.client()?;
    let peak = Peak::begin(rig)?;
    let passed = client.turn(session, &format!("line {}", 64 * MB)).is_ok();
    let growth = peak.growth()?;
    let after = rig.client()?.turn(session, "still there?").is_ok();
    let what = if passed { "passed" } else { "refused" };
    let goes_on = if after { "the session goes on" } else { "the session is stuck" };
    Ok(vec![
        row("large", "a line of 64 MB", format!("{what}; {goes_on}"), "the session goes on", Some(after)),
        fact("large", "a line of 64 MB: peak growth", growth, "MB"),
    ])
}

/// 1 GB of deltas in one session.
fn much(programs: &Programs) -> Result<Vec<Row>> {
    let world = programs.world();
    let rig = Rig::up(&world);
    let session = rig.session();
    let mut client = rig.client()?;
    let flood = |client: &mut crate::wire::Client, mb: usize| {
        client.turn(&session.id, &format!("deltas {}", mb * MB / DELTA)).map(drop)
    };
    // What the first flood makes room for is not lost again.
    flood(&mut client, 50)?;
    let peak = Peak::begin(&rig)?;
    let before = rss_mb(rig.daemon_pid())?;
    let mut half = before;
    for tenth in 1..=10 {
        progress(&format!("large: {tenth} of 10 tenths of 1 GB"));
        flood(&mut client, 100)?;
        if tenth == 5 {
            half = rss_mb(rig.daemon_pid())?;
        }
    }
    let after = rss_mb(rig.daemon_pid())?;
    Ok(vec![
        fact("large", "1 GB in all: growth of the daemon in the first half", half - before, "MB"),
        at_most("large", "and in the second half", after - half, 0.5, "MB", "nothing"),
        fact("large", "1 GB in all: peak growth of daemon and shim", peak.growth()?, "MB"),
    ])
}

/// The same flood of 100 MB of events with a viewer that keeps up and with one that does not read.
fn stalled(programs: &Programs) -> Result<Vec<Row>> {
    let mut growth = Vec::new();
    let mut caught_up = false;
    for stalls in [false, true] {
        progress(&format!("large: 100 MB of events, the viewer {}", if stalls { "stalls" } else { "reads" }));
        let world = programs.world();
        let rig = Rig::up(&world);
        let session = rig.session();
        let mut client = rig.client()?;
        let before = result_seq(&client.turn(&session.id, "hello")?)?;
        let live = Viewer::open(&rig.door, &session.id, before)?;
        let mut silent = stalls.then(|| subscribe(&rig.door, &session.id, before)).transpose()?;
        if let Some(silent) = &mut silent {
            // It is subscribed when the answer has begun.
            silent.read_exact(&mut [0; 64])?;
        }
        let peak = Peak::begin(&rig)?;
        let last = result_seq(&client.turn(&session.id, "events 100000 1000")?)?;
        live.until(last)?;
        growth.push(peak.growth()?);
        if !live.is_complete() {
            bail!("the viewer that reads missed events");
        }
        if stalls {
            drop(silent);
            let again = Viewer::open(&rig.door, &session.id, before)?;
            again.until(last)?;
            caught_up = again.is_complete() && again.events() >= last - before;
        }
    }
    Ok(vec![
        fact("stall", "100 MB of events, a viewer that reads: peak growth", growth[0], "MB"),
        at_most(
            "stall",
            "and one that stalls: peak growth more",
            (growth[1] - growth[0]).max(0.0),
            8.0,
            "MB",
            "≤ 8 MB",
        ),
        row(
            "stall",
            "it catches up by Last-Event-ID without a gap",
            caught_up.to_string(),
            "yes",
            Some(caught_up),
        ),
    ])
}

//! The whole path under floods: child, shim, log, store, one viewer; and a hundred viewers of one session.

use crate::proc::{all, cpu_us};
use crate::report::{Row, at_least, at_most, fact, median, progress, row};
use crate::rig::{Programs, Rig, result_seq};
use crate::wire::Viewer;
use anyhow::{Result, bail};
use std::sync::atomic::Ordering;
use std::time::Instant;

const ROUNDS: usize = 3;
const DELTAS: usize = 600_000;
const EVENTS: usize = 100_000;
const BYTES: usize = 300;
const VIEWERS: usize = 100;
const SHOWN: usize = 20_000;

pub(crate) fn run(programs: &Programs) -> Result<Vec<Row>> {
    let world = programs.world();
    let rig = Rig::up(&world);
    let mut rows = Vec::new();

    let flood = |kind: &str, count: usize| -> Result<(f64, f64, u64)> {
        let session = rig.session();
        let mut client = rig.client()?;
        // Whatever is prepared once is not part of the flood.
        let before = result_seq(&client.turn(&session.id, "hello")?)?;
        let viewer = Viewer::open(&rig.door, &session.id, before)?;
        let pids = rig.castras();
        let (began, used) = (Instant::now(), all(&pids, cpu_us));
        let last = result_seq(&client.turn(&session.id, &format!("{kind} {count} {BYTES}"))?)?;
        viewer.until(last)?;
        let wall = began.elapsed().as_secs_f64();
        let cpu = all(&pids, cpu_us) - used;
        if !viewer.is_complete() {
            bail!("{kind}: the viewer missed events: {:?}", viewer.seen);
        }
        if kind == "deltas" && viewer.seen.partials.load(Ordering::Acquire) == 0 {
            bail!("the viewer was shown no partial");
        }
        session.act("stop");
        Ok((cpu / count as f64, count as f64 / wall, last - before))
    };

    let (mut cpu, mut speed, mut stored) = (Vec::new(), Vec::new(), 0);
    for round in 1..=ROUNDS {
        progress(&format!("path: {DELTAS} deltas, round {round} of {ROUNDS}"));
        let (each, rate, rows) = flood("deltas", DELTAS)?;
        cpu.push(each);
        speed.push(rate);
        stored = rows;
    }
    let (cpu, speed) = (median(&cpu), median(&speed));
    rows.push(at_most("path", "a delta, all processes, CPU", cpu, 4.0, "µs", "≤ 4 µs"));
    rows.push(at_least("path", "deltas that two cores hold", 2e6 / cpu, 200_000.0, "/s", "≥ 200 000/s"));
    rows.push(fact("path", "deltas shown in this run", speed, "/s"));
    // A row for each whole message of a thousand deltas, and the turn's own.
    let share = stored as f64 / DELTAS as f64;
    rows.push(row(
        "path",
        "rows for each delta",
        format!("{share:.4}"),
        "deltas are never rows",
        Some(share < 0.002),
    ));

    let (mut cpu, mut speed) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        progress(&format!("path: {EVENTS} durable events, round {round} of {ROUNDS}"));
        let (each, rate, rows) = flood("events", EVENTS)?;
        if rows < EVENTS as u64 {
            bail!("{rows} of {EVENTS} events were committed");
        }
        cpu.push(each);
        speed.push(rate);
    }
    let (cpu, speed) = (median(&cpu), median(&speed));
    rows.push(fact("path", "a durable event of 300 B, all processes, CPU", cpu, "µs"));
    rows.push(at_least(
        "path",
        "durable events that two cores hold",
        2e6 / cpu,
        50_000.0,
        "/s",
        "≥ 50 000/s",
    ));
    rows.push(fact("path", "durable events shown in this run", speed, "/s"));
    rows.extend(fan_out(&rig)?);
    Ok(rows)
}

fn fan_out(rig: &Rig<'_>) -> Result<Vec<Row>> {
    progress(&format!("path: {VIEWERS} viewers of {SHOWN} events"));
    let (mut costs, mut complete) = (Vec::new(), true);
    for _ in 0..ROUNDS {
        let session = rig.session();
        let mut client = rig.client()?;
        let before = result_seq(&client.turn(&session.id, "hello")?)?;
        let viewers =
            (0..VIEWERS).map(|_| Viewer::open(&rig.door, &session.id, before)).collect::<Result<Vec<_>>>()?;
        let pids = rig.castras();
        let used = all(&pids, cpu_us);
        let last = result_seq(&client.turn(&session.id, &format!("events {SHOWN} {BYTES}"))?)?;
        for viewer in &viewers {
            viewer.until(last)?;
        }
        let cpu = all(&pids, cpu_us) - used;
        let delivered: u64 = viewers.iter().map(Viewer::events).sum();
        complete &= viewers.iter().all(Viewer::is_complete);
        costs.push(cpu / delivered as f64);
        session.act("stop");
    }
    Ok(vec![
        at_most("viewers", "100 viewers, a delivered message, CPU", median(&costs), 0.5, "µs", "≤ 0.5 µs"),
        row("viewers", "every viewer has every event, in order", complete.to_string(), "yes", Some(complete)),
    ])
}

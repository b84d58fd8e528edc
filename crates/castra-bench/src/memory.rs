//! What castra holds while nothing happens, and how fast it is back when the daemon was killed.

use crate::proc::{ran_us, rss_mb, status, threads_ns};
use crate::report::{Row, at_most, fact, progress, row};
use crate::rig::{Programs, Rig};
use crate::wire::Client;
use anyhow::{Result, bail};
use castra_testkit::Session;
use std::time::{Duration, Instant};

const SESSIONS: usize = 200;
/// How long nothing is done while castra's CPU is watched: three of the rarest look that a shim takes by itself
/// (20 s), or all of them could fall outside.
const IDLE: Duration = Duration::from_secs(60);
/// After its last word every session says once that it is idle, `idle_after_s` (60 s) later: an event, committed as any.
const SAID: Duration = Duration::from_secs(65);
/// After the last turn, before memory is read: caches of the moment are let go.
const SETTLE: Duration = Duration::from_secs(2);

pub(crate) fn run(programs: &Programs) -> Result<Vec<Row>> {
    let world = programs.world();
    let mut rig = Rig::up(&world);
    let mut rows = Vec::new();
    let first = rig.session();
    let mut client = rig.client()?;
    client.turn(&first.id, "hello")?;
    std::thread::sleep(SETTLE);
    let one = rss_mb(rig.daemon_pid())?;
    let threads = status(rig.daemon_pid(), "Threads")?;
    rows.push(at_most("memory", "shim, resident", rss_mb(rig.heaviest_shim()?)?, 5.0, "MB", "< 5 MB"));
    rows.push(at_most("memory", "daemon with one session", one, 20.0, "MB", "< 20 MB"));
    let own = status(rig.daemon_pid(), "RssAnon")? * 1024.0 / 1e6;
    rows.push(fact("memory", "of it its own; the rest is the program's pages", own, "MB"));

    progress(&format!("memory: {SESSIONS} sessions"));
    let began = Instant::now();
    let mut sessions: Vec<Session> = (1..SESSIONS).map(|_| rig.begin()).collect();
    sessions.push(first);
    for session in &sessions {
        session.wait_idle();
    }
    rows.push(fact("memory", format!("{SESSIONS} sessions up in"), began.elapsed().as_secs_f64(), "s"));
    // The first connection was silent for longer than the daemon keeps one.
    let mut client = rig.client()?;
    for session in &sessions {
        client.turn(&session.id, "hello")?;
    }
    std::thread::sleep(SETTLE);
    let many = rss_mb(rig.daemon_pid())?;
    let each = (many - one) * 1000.0 / (SESSIONS - 1) as f64;
    rows.push(fact("memory", format!("daemon with {SESSIONS} sessions"), many, "MB"));
    rows.push(at_most("memory", "each idle session more", each, 100.0, "kB", "≤ 100 kB"));

    progress(&format!("memory: {} s of nothing", (SAID + IDLE).as_secs()));
    let pids = rig.castras();
    let before = threads_ns(&pids);
    std::thread::sleep(SAID);
    let used = threads_ns(&pids);
    std::thread::sleep(IDLE);
    let said = ran_us(&before, &used) / 1e3 / SESSIONS as f64;
    let idle = ran_us(&used, &threads_ns(&pids)) / IDLE.as_secs_f64() / 1e4;
    let many_threads = status(rig.daemon_pid(), "Threads")?;
    rows.push(at_most(
        "memory",
        "threads of the daemon, more than with one",
        many_threads - threads,
        8.0,
        "",
        "none for a session",
    ));
    rows.push(fact("memory", "a session's one event that it is idle, and 65 s, CPU", said, "ms"));
    rows.push(at_most(
        "memory",
        format!("idle CPU, daemon with {SESSIONS} shims and guards"),
        idle,
        0.1,
        "% of a core",
        "< 0.1 %",
    ));
    rows.extend(recover(&mut rig, &sessions)?);
    Ok(rows)
}

/// `kill -9` of the daemon, another one, and every session answers.
fn recover(rig: &mut Rig<'_>, sessions: &[Session]) -> Result<Vec<Row>> {
    progress(&format!("recovery: {SESSIONS} sessions"));
    let (mut ready, mut answered) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        rig.daemon.kill9();
        let began = Instant::now();
        rig.daemon.start_again();
        ready.push(began.elapsed().as_secs_f64());
        // Four at a time, as many as read the store at once.
        let door = &rig.door;
        std::thread::scope(|scope| {
            let share = sessions.len().div_ceil(4);
            let askers: Vec<_> = (sessions.chunks(share))
                .map(|sessions| {
                    scope.spawn(move || -> Result<()> {
                        let mut client = Client::new(door)?;
                        sessions.iter().try_for_each(|session| client.turn(&session.id, "back?").map(drop))
                    })
                })
                .collect();
            askers.into_iter().try_for_each(|asker| match asker.join() {
                Ok(done) => done,
                Err(_) => bail!("an asker panicked"),
            })
        })?;
        answered.push(began.elapsed().as_secs_f64());
        rig.daemon.http().get("/api/v1/sessions?limit=1");
    }
    let answered = crate::report::median(&answered);
    Ok(vec![
        fact("recovery", "the daemon's port is open after", crate::report::median(&ready), "s"),
        row(
            "recovery",
            format!("{SESSIONS} sessions have each answered a turn after"),
            format!("{answered:.2} s"),
            "< 2 s",
            Some(answered < 2.0),
        ),
    ])
}

//! The real CLI: castra's share of the CPU, and starts that wait for their turn beside starts that fight.

use crate::proc::{all, cpu_us, ran_us, threads_ns};
use crate::report::{Row, at_most, fact, median, progress};
use crate::rig::{Programs, Rig};
use crate::wire::Client;
use anyhow::{Context as _, Result, bail};
use castra_proto::RunState;
use castra_testkit::{Cli, Session, World, clis};
use serde_json::json;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SESSIONS: usize = 30;
const TURNS: usize = 5;
/// Between two looks at who is ready: looking costs CPU that starts need.
const LOOK: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_secs(300);

pub(crate) fn run(programs: &Programs) -> Result<Vec<Row>> {
    let cli = clis().into_iter().next().context("CASTRA_TEST_CLAUDE names no CLI")?;
    let world = programs.world_with(&cli.path);
    let rig = Rig::up(&world);
    progress(&format!("real: {SESSIONS} starts of {cli} without a supervisor"));
    let bare = unsupervised(&cli, &world)?;
    progress(&format!("real: {SESSIONS} starts by castra"));
    let (sessions, ready) = supervised(&rig)?;
    let mut rows = vec![
        fact("real", "30 starts at once, unsupervised: median ready", median(&bare), "s"),
        fact("real", "30 starts by castra: median ready", median(&ready), "s"),
        at_most("real", "castra / unsupervised", median(&ready) / median(&bare), 0.6, "x", "≤ 0.6 x"),
    ];

    progress(&format!("real: {TURNS} turns in each of {SESSIONS} sessions"));
    let castras = rig.castras();
    let clis: Vec<i32> = sessions.iter().filter_map(|session| session.show().pid).collect();
    if clis.len() != SESSIONS {
        bail!("{} of {SESSIONS} sessions say their pid", clis.len());
    }
    // To the nanosecond: a shim's whole share is less than one tick.
    let before = (threads_ns(&castras), all(&clis, cpu_us));
    let daemon = threads_ns(&[rig.daemon_pid()]);
    std::thread::scope(|scope| {
        let askers: Vec<_> = (sessions.chunks(SESSIONS.div_ceil(6)))
            .map(|sessions| {
                let door = &rig.door;
                scope.spawn(move || -> Result<()> {
                    let mut client = Client::new(door)?;
                    for turn in 0..TURNS {
                        for session in sessions {
                            client.turn(&session.id, &format!("turn {turn}"))?;
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        askers.into_iter().try_for_each(|asker| match asker.join() {
            Ok(done) => done,
            Err(_) => bail!("an asker panicked"),
        })
    })?;
    let ours = ran_us(&before.0, &threads_ns(&castras));
    let daemon = ran_us(&daemon, &threads_ns(&[rig.daemon_pid()]));
    let theirs = all(&clis, cpu_us) - before.1;
    let turns = (SESSIONS * TURNS) as f64;
    rows.push(fact("real", "the CLIs' CPU for each turn", theirs / turns / 1e3, "ms"));
    rows.push(fact("real", "castra's CPU for each turn, all processes", ours / turns / 1e3, "ms"));
    rows.push(fact("real", "of it the daemon's", daemon / turns / 1e3, "ms"));
    rows.push(at_most("real", "castra / CLIs", ours / theirs * 100.0, 1.0, "%", "≤ 1 %"));
    Ok(rows)
}

/// Seconds to `initialize` answered, of starts that nobody puts in order.
fn unsupervised(cli: &Cli, world: &World) -> Result<Vec<f64>> {
    let began = Instant::now();
    let mut children = Vec::new();
    let mut readers = Vec::new();
    for n in 0..SESSIONS {
        let home = world.root().join(format!("bare-{n}"));
        std::fs::create_dir(&home)?;
        let mut child = bare(cli, world, &home)?;
        let mut stdin = child.stdin.take().context("stdin")?;
        let stdout = child.stdout.take().context("stdout")?;
        let request =
            json!({"type": "control_request", "request_id": "i", "request": {"subtype": "initialize"}});
        stdin.write_all(format!("{request}\n").as_bytes())?;
        children.push((child, stdin));
        readers.push(std::thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            for line in lines {
                if line.contains("\"control_response\"") {
                    return Some(began.elapsed().as_secs_f64());
                }
            }
            None
        }));
    }
    let ready: Vec<Option<f64>> = readers.into_iter().map(|reader| reader.join().ok().flatten()).collect();
    for (mut child, stdin) in children {
        drop(stdin);
        child.kill()?;
        child.wait()?;
    }
    ready.into_iter().map(|ready| ready.context("a CLI ended before it was ready")).collect()
}

/// With the arguments and the environment that matter for a start; as castra's, each in a session of its own, since
/// the kernel shares CPU between those.
fn bare(cli: &Cli, world: &World, home: &std::path::Path) -> Result<Child> {
    let child = Command::new("setsid")
        .arg(&cli.path)
        .args(["-p", "--output-format=stream-json", "--input-format=stream-json", "--verbose"])
        .arg("--include-partial-messages")
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", home)
        .env("CLAUDE_CONFIG_DIR", home.join(".claude"))
        .env("DISABLE_AUTOUPDATER", "1")
        .envs(world.model_env())
        .current_dir(home)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    Ok(child)
}

/// Sessions, and the seconds until each could be talked to.
fn supervised(rig: &Rig<'_>) -> Result<(Vec<Session>, Vec<f64>)> {
    let began = Instant::now();
    let sessions: Vec<Session> = (0..SESSIONS).map(|_| rig.begin()).collect();
    let mut ready = vec![None; SESSIONS];
    while ready.iter().any(Option::is_none) {
        for (session, ready) in sessions.iter().zip(&mut ready) {
            if ready.is_none() && session.show().state == RunState::Idle {
                *ready = Some(began.elapsed().as_secs_f64());
            }
        }
        if began.elapsed() > PATIENCE {
            bail!("not all sessions became ready");
        }
        std::thread::sleep(LOOK);
    }
    Ok((sessions, ready.into_iter().flatten().collect()))
}

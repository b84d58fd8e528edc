//! The record log after a run is over: compressed, and byte for byte what it was, whatever dies in between.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use castra_proto::RunState;
#[cfg(feature = "failpoints")]
use castra_testkit::wait_until;
use castra_testkit::{DEADLINE, Session, World, each, wait_for};
use serde_json::json;
use std::path::PathBuf;

const CASTRA: &str = env!("CARGO_BIN_EXE_castra");

const SCRIPT: &str = r#"
[[rule]]
name = "long"
when.last_user.contains = "at length"
reply.blocks = [{ text = "a word and another ", repeat = 2000 }]
[[rule]]
name = "echo"
reply.text = "You said: {{last_user}}"
"#;

fn log_dir(world: &World, session: &Session, run: u32) -> PathBuf {
    world.home().join(format!("sessions/{}/runs/{run}/log", session.id))
}

/// Names and sizes of a log's files.
fn files(world: &World, session: &Session, run: u32) -> Vec<(String, u64)> {
    let entries = std::fs::read_dir(log_dir(world, session, run)).unwrap().map(|entry| entry.unwrap());
    let mut files: Vec<_> = entries
        .map(|entry| {
            (entry.file_name().into_string().unwrap(), entry.metadata().map_or(0, |meta| meta.len()))
        })
        .collect();
    files.sort();
    files
}

fn wait_compressed(world: &World, session: &Session, run: u32) -> u64 {
    let compressed = || {
        let files = files(world, session, run);
        files.iter().all(|(name, _)| name.ends_with(".seg.gz")).then(|| files.iter().map(|file| file.1).sum())
    };
    wait_for("the log to be compressed", compressed, DEADLINE)
}

/// What `castra logs --raw` gives: all that was written to claude, and all that it wrote.
#[derive(Debug, PartialEq)]
struct Raw([String; 2]);

impl Raw {
    fn of(world: &World, session: &Session) -> Self {
        Self(["--in", "--out"].map(|which| world.cli(["logs", &session.id, "--raw", which]).ok()))
    }

    /// This is the beginning of that, and there is more.
    fn is_before(&self, later: &Self) -> bool {
        let pairs = || self.0.iter().zip(&later.0);
        pairs().all(|(a, b)| b.starts_with(a)) && pairs().any(|(a, b)| b.len() > a.len())
    }
}

fn export(world: &World, session: &Session) -> String {
    world.cli(["export", &session.id]).ok()
}

#[test]
fn a_log_is_compressed_when_its_run_is_over_and_reads_as_before() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let session = daemon.session(json!({}));
        session.ask("at length, please");
        session.ask("and briefly");
        session.wait_idle();
        let live = Raw::of(world, &session);
        let before: u64 = files(world, &session, 1).iter().map(|file| file.1).sum();
        assert_eq!(files(world, &session, 1).len(), 1, "the log of a run that goes on is left alone");
        session.act("stop");
        session.wait_state(RunState::Ended);
        let after = wait_compressed(world, &session, 1);
        println!("{cli}: {before} bytes of log became {after}");
        let over = Raw::of(world, &session);
        assert!(live.is_before(&over), "{cli}");
        let exported = export(world, &session);

        // A second run appends; the first one's bytes are still the first.
        session.act("resume");
        session.ask("once more");
        assert!(over.is_before(&Raw::of(world, &session)), "{cli}");
        session.act("stop");
        session.wait_state(RunState::Ended);
        wait_compressed(world, &session, 2);
        assert!(over.is_before(&Raw::of(world, &session)), "{cli}");
        assert!(export(world, &session).starts_with(&exported));
        world.cli(["check"]).ok();
        world.cli(["rm", &session.id]).ok();
        assert!(!world.home().join("sessions").join(&session.id).exists(), "nothing is left of it");
    });
}

#[cfg(feature = "failpoints")]
#[test]
fn killed_at_each_step_of_compressing() {
    let cli = &castra_testkit::clis()[0];
    for place in ["pack.written", "pack.renamed", "pack.removed"] {
        let world = World::new(CASTRA, &cli.path, SCRIPT);
        let mut daemon = world.daemon();
        let session = daemon.session(json!({}));
        session.ask("at length, please");
        session.wait_idle();
        let live = Raw::of(&world, &session);
        daemon.kill9();
        daemon.start_doomed(place);
        // Whether the answer comes before the end is the scheduler's choice.
        let _ =
            session.http.try_call("POST".parse().unwrap(), &session.path("/stop"), &[], Default::default());
        wait_until(&format!("the daemon to die at {place}"), || daemon.is_over(), DEADLINE);
        let left: Vec<String> = files(&world, &session, 1).into_iter().map(|file| file.0).collect();
        let expected: &[&str] = match place {
            "pack.written" => &["00000001.seg", "00000001.seg.gz.tmp"],
            "pack.renamed" => &["00000001.seg", "00000001.seg.gz"],
            _ => &["00000001.seg.gz"],
        };
        assert_eq!(left, expected, "{place}");
        daemon.start_again();
        let read_at_once = Raw::of(&world, &session);
        wait_compressed(&world, &session, 1);
        let over = Raw::of(&world, &session);
        assert_eq!(read_at_once, over, "{place}");
        assert!(live.is_before(&over), "{place}");
        assert_eq!(session.show().state, RunState::Ended);
        let damage: serde_json::Value = serde_json::from_str(&world.cli(["check", "--json"]).ok()).unwrap();
        assert_eq!(damage["items"], json!([]), "{place}");
    }
}

//! A hook that is a program: what it finds, and what its end says. It runs as the daemon's user on the daemon's machine,
//! outside every sandbox; the folder that it is called in is the agent's.

use super::desk::{Firing, Pass};
use super::{Said, answer};
use crate::engine::Engine;
use bytes::Bytes;
use castra_claude::launch::inherited;
use castra_proto::shim::relay::{Exec, ExecEnd};
use std::collections::BTreeMap;
use std::time::Duration;

/// Where there is no workspace.
const NOWHERE: &str = "/";

/// Runs it to its end. Dropped, or when its time is over, its whole process group is killed.
pub(super) async fn run(
    engine: &Engine,
    argv: &[String],
    firing: &Firing,
    pass: &Pass,
    (workspace, stdin): (Option<&str>, Bytes),
    limit: Duration,
) -> Said {
    // What a daemon that was killed has left of the same call.
    let _ = engine.host.sweep(firing.id).await;
    let mut env = environment(engine, firing, workspace);
    env.insert("CASTRA_HOOK_TOKEN".into(), pass.secret.clone());
    let exec = Exec {
        argv: argv.to_vec(),
        env,
        cwd: workspace.unwrap_or(NOWHERE).to_owned(),
        timeout_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
    };
    match engine.host.exec(exec, stdin, None).await {
        Ok(end) => judge(end),
        Err(error) => Err(error.to_string()),
    }
}

/// What a program of a hook finds: castra's allow-list, and who and where it is.
pub(super) fn environment(
    engine: &Engine,
    firing: &Firing,
    workspace: Option<&str>,
) -> BTreeMap<String, String> {
    let mut env = inherited(&engine.config.inherited);
    env.entry("PATH".into()).or_insert_with(|| "/usr/local/bin:/usr/bin:/bin".into());
    let own = [
        ("HOME", Some(engine.probe.user_home.clone())),
        ("CASTRA_HOME", Some(engine.probe.home.clone())),
        ("CASTRA_TASK", Some(firing.task.to_string())),
        ("CASTRA_SESSION", firing.session.map(|session| session.to_string())),
        ("CASTRA_HOOK", Some(firing.on.as_str().to_owned())),
        ("CASTRA_WORKSPACE", workspace.map(str::to_owned)),
        // By which what is left of it is found.
        ("CASTRA_RUN", Some(firing.id.to_string())),
    ];
    env.extend(own.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    env
}

fn judge(end: ExecEnd) -> Said {
    let last = end.stderr.lines().rev().find(|line| !line.trim().is_empty());
    let last = last.map(|line| format!(": {}", line.trim())).unwrap_or_default();
    match (end.timed_out, end.code, end.signal) {
        (true, _, _) => Err(format!("its time was over{last}")),
        (false, Some(0), _) => Ok(answer(&end.stdout)),
        (false, Some(code), _) => Err(format!("exit code {code}{last}")),
        (false, None, Some(signal)) => Err(format!("signal {signal}{last}")),
        (false, None, None) => Err(format!("no exit code{last}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Answer;
    use super::*;

    #[test]
    fn its_end_and_its_output_are_the_answer() {
        let end = |code, signal, timed_out, stdout: &str, stderr: &str| ExecEnd {
            code,
            signal,
            timed_out,
            stdout: stdout.into(),
            stderr: stderr.into(),
        };
        for (end, said) in [
            (end(Some(0), None, false, "", "noise"), Ok(Answer::Accepted)),
            (end(Some(0), None, false, " OK\n", ""), Ok(Answer::Accepted)),
            (end(Some(0), None, false, "shorter, please\n", ""), Ok(Answer::Text("shorter, please".into()))),
            (end(Some(3), None, false, "ok", "a\nb \n\n"), Err("exit code 3: b".to_owned())),
            (end(None, Some(9), false, "", ""), Err("signal 9".to_owned())),
            (end(None, Some(9), true, "ok", ""), Err("its time was over".to_owned())),
        ] {
            assert_eq!(judge(end.clone()), said, "{end:?}");
        }
    }
}

//! Programs of the task's host, for inputs: with an environment of their own, run to their end. Refuses a shell.

use super::InputError;
use crate::engine::Engine;
use crate::host::HostError;
use bytes::Bytes;
use castra_proto::shim::relay::{Exec, ExecEnd};
use std::collections::BTreeMap;

/// For what is short, milliseconds.
const SHORT_MS: u64 = 10 * 60_000;
/// Bytes of what a program said that are told.
const SAID: usize = 400;

/// Of the caller's environment: how to find programs, and whom to trust. No proxy: through one nobody could say which
/// address is reached.
const PASSED: [&str; 4] = ["PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE"];

pub(super) fn environment(engine: &Engine, more: &[(&str, &str)]) -> BTreeMap<String, String> {
    let inherited = &engine.config.inherited;
    let mut env: BTreeMap<String, String> = [("PATH", "/usr/local/bin:/usr/bin:/bin"), ("LC_ALL", "C")]
        .into_iter()
        .chain(PASSED.iter().filter_map(|name| Some((*name, inherited.get(*name)?.as_str()))))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    env.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    env
}

/// However it ends.
pub(super) async fn run(
    engine: &Engine,
    argv: Vec<String>,
    env: BTreeMap<String, String>,
    stdin: Bytes,
    timeout_ms: u64,
) -> Result<ExecEnd, InputError> {
    let program = name(&argv);
    let exec = Exec { argv, env, cwd: "/".into(), timeout_ms };
    match engine.host.exec(exec, stdin, None).await {
        Ok(end) => Ok(end),
        Err(HostError::Relay(relay)) if relay.errno().is_some() => {
            Err(InputError::NoProgram { program, why: relay.to_string() })
        }
        Err(error) => Err(error.into()),
    }
}

/// What it said, of a program that must end well.
pub(super) fn well(program: &'static str, end: ExecEnd) -> Result<String, InputError> {
    if end.code == Some(0) && !end.timed_out { Ok(end.stdout) } else { Err(failed(program, &end)) }
}

pub(super) fn failed(program: &'static str, end: &ExecEnd) -> InputError {
    InputError::Program { program, said: said(end) }
}

/// Its last words, as one line.
pub(super) fn said(end: &ExecEnd) -> String {
    if end.timed_out {
        return "it took too long".into();
    }
    let text: Vec<&str> = end.stderr.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let text: String = text.join("; ").chars().filter(|c| !c.is_control()).collect();
    let text: String = text.chars().take(SAID).collect();
    if !text.is_empty() {
        return text;
    }
    match (end.code, end.signal) {
        (Some(code), _) => format!("exit code {code}"),
        (None, signal) => format!("signal {}", signal.unwrap_or_default()),
    }
}

fn name(argv: &[String]) -> &'static str {
    let known = ["curl", "git", "sha256sum", "chmod"];
    known
        .into_iter()
        .find(|known| argv.first().is_some_and(|program| program == known))
        .unwrap_or("a program")
}

/// Hexadecimal.
pub(super) async fn sha256(engine: &Engine, path: &str) -> Result<String, InputError> {
    let argv = ["sha256sum", "--", path].map(str::to_owned).to_vec();
    let end = run(engine, argv, environment(engine, &[]), Bytes::new(), SHORT_MS).await?;
    let said = well("sha256sum", end)?;
    // A name that it had to escape makes it begin with a backslash.
    let hash: String = said.trim_start_matches('\\').chars().take(64).collect();
    Ok(hash)
}

/// `mode` is octal and was checked.
pub(super) async fn chmod(engine: &Engine, mode: &str, path: &str) -> Result<(), InputError> {
    let argv = ["chmod", mode, "--", path].map(str::to_owned).to_vec();
    let end = run(engine, argv, environment(engine, &[]), Bytes::new(), SHORT_MS).await?;
    well("chmod", end).map(drop)
}

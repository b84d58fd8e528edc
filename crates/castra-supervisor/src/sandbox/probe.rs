//! Whether bubblewrap holds on a host: by accesses that must fail, and one that must work.
//!
//! Refuses to believe an exit code: what was denied inside is looked at again from outside.

use std::collections::BTreeMap;

use bytes::Bytes;
use castra_proto::shim::relay::{At, Exec, ExecEnd, Probe, RelayError};
use uuid::Uuid;

use super::{Bwrap, Paths, SandboxProbe, wrap};
use crate::host::{Host, HostError};

/// It takes milliseconds; a host that swaps gets more.
const TIMEOUT_MS: u64 = 20_000;

/// Beneath `$CASTRA_HOME`, for as long as the probe lasts.
const PLACE: &str = "sandbox-probe";

/// Parts of `/etc` whose names hold a version, by their beginning.
const ETC_PREFIXES: &[&str] = &["java", "python", "perl", "php", "ImageMagick", "maven", "gradle"];

/// Run as the agent would be: `$1` a secret, `$2` a folder outside, `$3` a name in /tmp. Says which pid
/// namespace it is in, then each forbidden thing that it could do.
const SCRIPT: &str = r#"
echo "namespace $(readlink /proc/self/ns/pid)"
echo > inside && echo works
cat "$1" > /dev/null 2>&1 && echo "reads castra's files"
{ mkdir -p "$2" && echo > "$2/written"; } 2> /dev/null && echo "writes outside its folders"
(: >> /proc/sys/kernel/core_pattern) 2> /dev/null && echo "changes the kernel's settings"
echo > "/tmp/$3" || echo "has no /tmp"
"#;

/// Tries bubblewrap as it would be used. Leaves nothing behind.
///
/// Errors: only a host that did not answer; everything else is a reason for [`SandboxProbe::None`].
pub async fn probe(host: &dyn Host) -> Result<SandboxProbe, HostError> {
    let machine = host.probe().await?;
    let Some(program) = machine.programs.get("bwrap") else {
        return Ok(none("bubblewrap is not installed"));
    };
    let root = machine.uid == 0;
    let mut bwrap = Bwrap { program: program.clone(), root, userns: false, etc: etc(host).await? };
    let first = attempt(host, &machine, &bwrap).await?;
    if matches!(first, SandboxProbe::Bubblewrap(_)) || !root {
        return Ok(first);
    }
    // Root of a container may lack CAP_SYS_ADMIN, and yet be allowed to make a user namespace.
    bwrap.userns = true;
    match attempt(host, &machine, &bwrap).await? {
        second @ SandboxProbe::Bubblewrap(_) => Ok(second),
        SandboxProbe::None { .. } => Ok(first),
    }
}

async fn attempt(host: &dyn Host, machine: &Probe, bwrap: &Bwrap) -> Result<SandboxProbe, HostError> {
    let outcome = tried(host, machine, bwrap).await;
    let removed = host.files().remove(At::home(PLACE)).await;
    match outcome.and_then(|probe| removed.map(|()| probe)) {
        // The host answered; it could not do it.
        Err(HostError::Relay(error)) => Ok(none(format!("the probe could not be made: {error}"))),
        other => other,
    }
}

async fn tried(host: &dyn Host, machine: &Probe, bwrap: &Bwrap) -> Result<SandboxProbe, HostError> {
    let files = host.files();
    files.remove(At::home(PLACE)).await?;
    for dir in ["work", "home", "outside"] {
        files.mkdir(At::home(format!("{PLACE}/{dir}")), 0o700).await?;
    }
    files.put(At::home(format!("{PLACE}/secret")), 0o600, false, Bytes::from_static(b"secret")).await?;

    let place = format!("{}/{PLACE}", machine.home);
    let mark = format!("castra-{}", Uuid::new_v4().simple());
    let paths = Paths {
        castra_home: machine.home.clone(),
        work: format!("{place}/work"),
        home: format!("{place}/home"),
        user_home: Some(machine.user_home.clone()),
        claude: "/bin/sh".into(),
        ..Paths::default()
    };
    let (secret, outside) = (format!("{place}/secret"), format!("{place}/outside"));
    let script = ["/bin/sh", "-c", SCRIPT, "probe", &secret, &outside, &mark].map(str::to_owned);
    let argv = match wrap(&script, bwrap, &paths) {
        Ok(argv) => argv,
        Err(error) => return Ok(none(error.to_string())),
    };
    let inside = run(host, argv, &paths.work).await?;
    let own = run(host, ["readlink", "/proc/self/ns/pid"].map(str::to_owned).to_vec(), &paths.work).await?;

    let mut seen = Vec::new();
    if files.stat(At::home(format!("{PLACE}/outside/written"))).await?.is_some() {
        seen.push("writes outside its folders");
    }
    if files.stat(At::dir("/tmp", &mark)).await?.is_some() {
        files.remove(At::dir("/tmp", &mark)).await?;
        seen.push("shares /tmp");
    }
    let wrote = files.stat(At::home(format!("{PLACE}/work/inside"))).await?.is_some();
    Ok(judge(bwrap, &inside, own.stdout.trim(), wrote, &seen))
}

/// `own`: the pid namespace of the host. `seen`: what was found outside although it was forbidden.
fn judge(bwrap: &Bwrap, inside: &ExecEnd, own: &str, wrote: bool, seen: &[&str]) -> SandboxProbe {
    let mut lines = inside.stdout.lines();
    let Some(namespace) = lines.next().and_then(|line| line.strip_prefix("namespace ")) else {
        let said = inside.stderr.lines().find(|line| !line.trim().is_empty());
        let how = match (said, inside.timed_out) {
            (_, true) => "it did not end in time".to_owned(),
            (Some(line), _) => printable(line),
            (None, _) => format!("it ended with {:?}", inside.code.or(inside.signal)),
        };
        return none(format!("bubblewrap does not start here: {how}"));
    };
    let mut faults: Vec<&str> = seen.to_vec();
    if namespace.is_empty() || namespace == own {
        faults.push("shares the process table");
    }
    let mut works = false;
    for line in lines {
        match line {
            "works" => works = true,
            fault if !faults.contains(&fault) => faults.push(fault),
            _ => (),
        }
    }
    if !(works && wrote) {
        faults.push("cannot write its own folder");
    }
    if faults.is_empty() {
        return SandboxProbe::Bubblewrap(bwrap.clone());
    }
    none(format!("bubblewrap does not hold here: what is inside {}", faults.join(", ")))
}

async fn run(host: &dyn Host, argv: Vec<String>, cwd: &str) -> Result<ExecEnd, HostError> {
    let env = BTreeMap::from([("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned())]);
    host.exec(Exec { argv, env, cwd: cwd.to_owned(), timeout_ms: TIMEOUT_MS }, Bytes::new(), None).await
}

async fn etc(host: &dyn Host) -> Result<Vec<String>, HostError> {
    match host.files().list(At::dir("/etc", "")).await {
        Ok(entries) => Ok(entries
            .into_iter()
            .map(|entry| entry.name)
            .filter(|name| ETC_PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
            .collect()),
        Err(HostError::Relay(RelayError::Io { .. })) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn none(reason: impl Into<String>) -> SandboxProbe {
    SandboxProbe::None { reason: reason.into() }
}

/// A program's words, short and without what a terminal would obey.
fn printable(text: &str) -> String {
    text.trim().chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_denied_everything_is_a_sandbox() {
        let bwrap = Bwrap { program: "/usr/bin/bwrap".into(), root: false, userns: false, etc: vec![] };
        let end = |stdout: &str, stderr: &str| ExecEnd {
            code: Some(1),
            signal: None,
            timed_out: false,
            stdout: stdout.into(),
            stderr: stderr.into(),
        };
        let good = "namespace pid:[2]\nworks\n";
        let holds = SandboxProbe::Bubblewrap(bwrap.clone());
        let not = |what: &str| none(format!("bubblewrap does not hold here: what is inside {what}"));
        let table: Vec<(ExecEnd, bool, &[&str], SandboxProbe)> = vec![
            (end(good, ""), true, &[], holds),
            (end(good, ""), false, &[], not("cannot write its own folder")),
            (end("namespace pid:[2]\n", ""), true, &[], not("cannot write its own folder")),
            (end("namespace pid:[1]\nworks\n", ""), true, &[], not("shares the process table")),
            (end("namespace \nworks\n", ""), true, &[], not("shares the process table")),
            (end(&format!("{good}reads castra's files\n"), ""), true, &[], not("reads castra's files")),
            (end(good, ""), true, &["shares /tmp"], not("shares /tmp")),
            (
                end(&format!("{good}writes outside its folders\nanything else\n"), ""),
                true,
                &["writes outside its folders"],
                not("writes outside its folders, anything else"),
            ),
            (
                end("", "\nbwrap: No permissions\x1b[0m to create a namespace\nmore\n"),
                false,
                &[],
                none("bubblewrap does not start here: bwrap: No permissions[0m to create a namespace"),
            ),
            (end("", ""), false, &[], none("bubblewrap does not start here: it ended with Some(1)")),
        ];
        for (inside, wrote, seen, want) in table {
            assert_eq!(judge(&bwrap, &inside, "pid:[1]", wrote, seen), want, "{inside:?}");
        }
    }
}

//! Whether a file is claude: by its own word, once for each file that it is.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use castra_proto::shim::relay::{Entry, EntryKind, Exec, ExecEnd, Probe, RelayError};

use super::{Cli, Provision, Source, look, printable, unreachable};
use crate::Result;
use crate::host::{Host, HostError};

/// Hundreds of MB may come from a cold, slow disk.
const TIMEOUT_MS: u64 = 60_000;

/// What of a file changes when it is another one.
type Stamp = (EntryStamp, EntryStamp);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct EntryStamp {
    inode: u64,
    size: u64,
    mtime_ns: i64,
}

impl From<&Entry> for EntryStamp {
    fn from(entry: &Entry) -> Self {
        Self { inode: entry.inode, size: entry.size, mtime_ns: entry.mtime_ns }
    }
}

/// A path that was looked at, and what came of it.
#[derive(Clone, Debug)]
struct Known {
    /// Of the name itself, which may be a link, and of the file behind it.
    stamp: Stamp,
    real: String,
    version: Result<String, String>,
}

impl Known {
    fn cli(self, source: Source) -> Result<Cli, String> {
        self.version.map(|version| Cli { path: self.real, version, source })
    }
}

#[derive(Debug, Default)]
pub(super) struct Checked {
    /// By path. Short sections, no await: a std mutex.
    known: Mutex<HashMap<String, Known>>,
    /// Of many starts at once, one runs the program and the others find its answer.
    asking: tokio::sync::Mutex<()>,
}

impl Checked {
    fn get(&self, path: &str) -> Option<Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned()
    }

    fn set(&self, path: &str, known: Known) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), known);
    }
}

impl Provision {
    /// `None`: nothing is there. `Some(Err)`: something is, and why it is not claude.
    pub(super) async fn check(
        &self,
        host: &dyn Host,
        machine: &Probe,
        path: &str,
        source: Source,
    ) -> Result<Option<Result<Cli, String>>> {
        if let Some(known) = self.known(host, path).await? {
            return Ok(Some(known.cli(source)));
        }
        let _asking = self.checked.asking.lock().await;
        if let Some(known) = self.known(host, path).await? {
            return Ok(Some(known.cli(source)));
        }
        let Some(entry) = look(host, path).await? else { return Ok(None) };
        let Some(real) = self.real(host, machine, path).await? else { return Ok(None) };
        let Some(target) = look(host, &real).await?.filter(|e| e.kind == EntryKind::File) else {
            return Ok(None);
        };
        let version = if target.mode & 0o111 == 0 {
            Err(format!("{real} is not executable"))
        } else {
            self.version(host, machine, &real).await?
        };
        let known = Known { stamp: ((&entry).into(), (&target).into()), real, version };
        // A refusal may be this moment's trouble (no memory, a slow disk): asked again the next time.
        if known.version.is_ok() {
            self.checked.set(path, known.clone());
        }
        Ok(Some(known.cli(source)))
    }

    /// What was found out about this path, if it is still the same file.
    async fn known(&self, host: &dyn Host, path: &str) -> Result<Option<Known>> {
        let Some(known) = self.checked.get(path) else { return Ok(None) };
        let (Some(entry), Some(real)) = (look(host, path).await?, look(host, &known.real).await?) else {
            return Ok(None);
        };
        Ok((known.stamp == ((&entry).into(), (&real).into())).then_some(known))
    }

    /// The file behind all links; `None` for a link to nothing.
    async fn real(&self, host: &dyn Host, machine: &Probe, path: &str) -> Result<Option<String>> {
        let end = self.exec(host, machine, &["readlink", "-f", "--", path], TIMEOUT_MS).await?;
        let real = end
            .ok()
            .filter(|end| end.code == Some(0))
            .map(|end| end.stdout.trim_end_matches('\n').to_owned());
        Ok(real.filter(|real| real.starts_with('/')))
    }

    /// What `--version` says, or why it says nothing that counts.
    async fn version(&self, host: &dyn Host, machine: &Probe, path: &str) -> Result<Result<String, String>> {
        let end = match self.exec(host, machine, &[path, "--version"], TIMEOUT_MS).await? {
            Ok(end) => end,
            Err(why) => return Ok(Err(format!("{path} cannot be started: {why}"))),
        };
        Ok(parse(&end).ok_or_else(|| {
            let said = end.stdout.lines().chain(end.stderr.lines()).find(|line| !line.trim().is_empty());
            match said {
                _ if end.timed_out => format!("{path} --version did not end within {} s", TIMEOUT_MS / 1000),
                Some(line) => format!("{path} is not Claude Code: --version says {:?}", printable(line)),
                None => format!(
                    "{path} is not Claude Code: --version says nothing (exit {:?})",
                    end.code.or(end.signal)
                ),
            }
        }))
    }

    /// Runs a program with an environment and a HOME that are castra's own.
    pub(super) async fn exec(
        &self,
        host: &dyn Host,
        machine: &Probe,
        argv: &[&str],
        timeout_ms: u64,
    ) -> Result<Result<ExecEnd, String>> {
        let home = self.home(host, machine).await?;
        let env = BTreeMap::from([
            (
                "PATH".to_owned(),
                self.inherited.get("PATH").cloned().unwrap_or_else(|| DEFAULT_PATH.to_owned()),
            ),
            ("HOME".to_owned(), home.clone()),
            ("DISABLE_AUTOUPDATER".to_owned(), "1".to_owned()),
            ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC".to_owned(), "1".to_owned()),
        ]);
        let argv = argv.iter().map(|a| (*a).to_owned()).collect();
        ended(host.exec(Exec { argv, env, cwd: home, timeout_ms }, Bytes::new(), None).await)
    }
}

pub(super) const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// A program that cannot be started is an answer; a host that does not answer is an error.
pub(super) fn ended(end: Result<ExecEnd, HostError>) -> Result<Result<ExecEnd, String>> {
    match end {
        Ok(end) => Ok(Ok(end)),
        Err(HostError::Relay(RelayError::Io { message, .. })) => Ok(Err(message)),
        Err(error) => Err(unreachable(error)),
    }
}

/// `2.1.197 (Claude Code)`, the first line and nothing else of it (facts/claude-cli.md).
fn parse(end: &ExecEnd) -> Option<String> {
    let version = end.stdout.lines().next()?.trim().strip_suffix(" (Claude Code)")?;
    (end.code == Some(0) && is_version(version)).then(|| version.to_owned())
}

/// Three numbers, and perhaps a tag after `-` or `+`.
pub(super) fn is_version(text: &str) -> bool {
    let (numbers, tag) = match text.find(['-', '+']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let number = |part: &str| !part.is_empty() && part.len() < 10 && part.bytes().all(|b| b.is_ascii_digit());
    let plain = |tag: &str| {
        !tag.is_empty()
            && tag.len() < 64
            && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.+".contains(&b))
    };
    numbers.split('.').count() == 3 && numbers.split('.').all(number) && tag.is_none_or(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_says_that_it_is_claude() {
        let end = |code, stdout: &str| ExecEnd {
            code,
            signal: None,
            timed_out: false,
            stdout: stdout.into(),
            stderr: String::new(),
        };
        for (code, said, want) in [
            (Some(0), "2.1.197 (Claude Code)\n", Some("2.1.197")),
            (Some(0), "2.1.197-rc.1 (Claude Code)\nmore", Some("2.1.197-rc.1")),
            (Some(1), "2.1.197 (Claude Code)\n", None),
            (None, "2.1.197 (Claude Code)\n", None),
            (Some(0), "2.1.197\n", None),
            (Some(0), "claude 2.1.197 (Claude Code)\n", None),
            (Some(0), "2.1 (Claude Code)\n", None),
            (Some(0), "../../x (Claude Code)\n", None),
            (Some(0), "2.1.1/../.. (Claude Code)\n", None),
            (Some(0), "", None),
        ] {
            assert_eq!(parse(&end(code, said)).as_deref(), want, "{code:?} {said:?}");
        }
    }
}

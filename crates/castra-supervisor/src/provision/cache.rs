//! castra's own versions, `<install_dir>/<version>/claude`, and the list of everything that could be used.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use castra_proto::shim::relay::{At, EntryKind, Probe};
use castra_proto::{ErrorCode, Problem};

use super::check::is_version;
use super::{Cli, Provision, Source, in_home, unreachable};
use crate::host::{Host, HostError};
use crate::{Error, Result};

/// Below the folder of the versions: the HOME of programs that castra runs for itself.
const HOME: &str = ".home";

/// One place where a claude is, or claims to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub path: String,
    pub source: Source,
    /// What it is, or why it cannot be used.
    pub cli: Result<Cli, String>,
}

impl Provision {
    /// Everything that could be used, in the order of looking.
    pub async fn list(&self, host: &dyn Host) -> Result<Vec<Candidate>> {
        let machine = self.machine(host).await?;
        let configured = self.config.path.iter().map(|path| path.to_string_lossy().into_owned());
        let mut places: Vec<_> = configured.map(|path| (path, Source::Configured)).collect();
        places.extend(self.on_path().map(|path| (path, Source::Path)));
        places.extend(in_home(machine).map(|path| (path, Source::Home)));
        places.extend(self.cached(host, machine).await?.into_iter().map(|path| (path, Source::Cache)));
        let mut seen = BTreeSet::new();
        let mut found = Vec::new();
        for (path, source) in places {
            // PATH may name a folder twice, and ~/.local/bin as well.
            if !seen.insert(path.clone()) {
                continue;
            }
            match self.check(host, machine, &path, source).await? {
                Some(cli) => found.push(Candidate { path, source, cli }),
                None if source == Source::Configured => {
                    found.push(Candidate { path, source, cli: Err("nothing is there".to_owned()) });
                }
                None => (),
            }
        }
        Ok(found)
    }

    /// Removes a version of the cache. `used`: paths that live sessions run.
    ///
    /// Errors: `not_found`; `conflict` while it is used.
    pub async fn remove(&self, host: &dyn Host, version: &str, used: &BTreeSet<String>) -> Result<()> {
        let machine = self.machine(host).await?;
        let missing =
            || Error::new(ErrorCode::NotFound, format!("castra has no claude {version:?} in its cache"));
        if !is_version(version) {
            return Err(missing());
        }
        // An installation that is under way may be of this version.
        let _flight = self.flight.lock().await;
        let path = format!("{}/{version}/claude", self.dir(machine));
        let real =
            self.check(host, machine, &path, Source::Cache).await?.and_then(Result::ok).map(|cli| cli.path);
        if used.contains(&path) || real.is_some_and(|real| used.contains(&real)) {
            let problem =
                Problem::new(ErrorCode::Conflict, format!("claude {version} is used by a live session"));
            return Err(Error::Refused(
                problem.hint("stop the sessions that use it (`castra ps`), then remove it"),
            ));
        }
        let place = self.at(version);
        if host.files().stat(place.clone()).await.ok().flatten().is_none() {
            return Err(missing());
        }
        host.files().remove(place).await.map_err(unreachable)
    }

    /// Paths of the cached versions, newest first.
    pub(super) async fn cached(&self, host: &dyn Host, machine: &Probe) -> Result<Vec<String>> {
        let entries = match host.files().list(self.at("")).await {
            Ok(entries) => entries,
            Err(HostError::Relay(_)) => return Ok(Vec::new()),
            Err(error) => return Err(unreachable(error)),
        };
        let folders = entries.into_iter().filter(|entry| entry.kind == EntryKind::Dir);
        let mut versions: Vec<String> =
            folders.map(|entry| entry.name).filter(|name| is_version(name)).collect();
        versions.sort_by(|a, b| newer(b, a));
        Ok(versions.into_iter().map(|version| format!("{}/{version}/claude", self.dir(machine))).collect())
    }

    /// The folder of the versions, absolute.
    pub(super) fn dir(&self, machine: &Probe) -> String {
        match &self.config.install_dir {
            Some(dir) => dir.to_string_lossy().trim_end_matches('/').to_owned(),
            None => format!("{}/claude", machine.home),
        }
    }

    /// A path in it, for the host's files.
    pub(super) fn at(&self, path: &str) -> At {
        match &self.config.install_dir {
            Some(dir) => At::dir(dir.to_string_lossy(), path),
            None if path.is_empty() => At::home("claude"),
            None => At::home(format!("claude/{path}")),
        }
    }

    /// Makes the HOME for castra's own programs, and the folder of the versions with it.
    pub(super) async fn home(&self, host: &dyn Host, machine: &Probe) -> Result<String> {
        if let Some(dir) = &self.config.install_dir
            && host.files().list(self.at("")).await.is_err()
        {
            // The configured folder may lie behind links, which only its own name may use.
            let (above, name) = split(&dir.to_string_lossy());
            host.files().mkdir(At::dir(above, name), 0o755).await.map_err(unreachable)?;
        }
        host.files().mkdir(self.at(HOME), 0o700).await.map_err(unreachable)?;
        Ok(format!("{}/{HOME}", self.dir(machine)))
    }
}

/// The folder above, and the last name.
fn split(path: &str) -> (String, String) {
    match path.trim_end_matches('/').rsplit_once('/') {
        Some(("", name)) => ("/".to_owned(), name.to_owned()),
        Some((above, name)) => (above.to_owned(), name.to_owned()),
        None => ("/".to_owned(), path.to_owned()),
    }
}

/// By the numbers; a tagged version is older than the plain one.
fn newer(a: &str, b: &str) -> Ordering {
    let key = |version: &str| {
        let (numbers, tag) =
            version.split_once(['-', '+']).map_or((version, None), |(n, t)| (n, Some(t.to_owned())));
        let numbers: Vec<u64> = numbers.split('.').map(|n| n.parse().unwrap_or(0)).collect();
        (numbers, tag.is_none(), tag)
    };
    key(a).cmp(&key(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_first() {
        let mut versions = ["2.1.9", "2.1.197", "2.1.197-rc.1", "10.0.0", "2.1.197-rc.2"];
        versions.sort_by(|a, b| newer(b, a));
        assert_eq!(versions, ["10.0.0", "2.1.197", "2.1.197-rc.2", "2.1.197-rc.1", "2.1.9"]);
    }
}

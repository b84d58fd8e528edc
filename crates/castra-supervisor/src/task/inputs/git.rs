//! A repository, by the host's git: as a copy of its own, or as a worktree of one that is there. Refuses logins, hooks,
//! helpers, filters and every protocol but the one that is needed: what a repository's own configuration names is not run.

use super::exec::{environment, failed, run, well};
use super::{Fetch, InputError};
use crate::task::reach;
use bytes::Bytes;
use castra_proto::shim::relay::ExecEnd;
use castra_proto::task::Git;
use std::net::SocketAddr;
use url::Url;

const TIMEOUT_MS: u64 = 6 * 3_600_000;

/// Where it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Where {
    /// In castra's folder.
    Fetched,
    /// Where the agent will find it.
    InPlace,
}

pub(super) async fn fetch(fetch: &Fetch<'_>, git: &Git) -> Result<Where, InputError> {
    match (&git.url, &git.path) {
        (Some(url), _) => {
            let url = Url::parse(url).map_err(|_| InputError::Redirect { to: String::new() })?;
            let addresses = reach::addresses(&url, fetch.input.allow_private).await?;
            let options = remote_options(&url, &addresses);
            clone(fetch, url.as_str(), &options, git.reference.as_deref()).await
        }
        (None, path) => {
            let path = path.as_deref().unwrap_or_default();
            if fetch.engine.real_path(path).await?.as_deref() != Some(path) {
                return Err(InputError::Moved { path: path.into() });
            }
            if git.worktree {
                return worktree(fetch, path, git.reference.as_deref()).await;
            }
            let options = vec!["protocol.file.allow=always".to_owned()];
            clone(fetch, path, &options, git.reference.as_deref()).await
        }
    }
}

/// Only over this protocol, to these addresses, and to no other place from there.
fn remote_options(url: &Url, addresses: &[SocketAddr]) -> Vec<String> {
    let mut options =
        vec![format!("protocol.{}.allow=always", url.scheme()), "http.followRedirects=false".to_owned()];
    if let Some(url::Host::Domain(name)) = url.host() {
        let ips: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
        let port = url.port_or_known_default().unwrap_or_default();
        options.push(format!("http.curloptResolve={name}:{port}:{}", ips.join(",")));
    }
    options
}

/// Nothing that somebody's configuration names is run, and nobody is asked.
const ALWAYS: [&str; 7] = [
    "protocol.allow=never",
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "credential.helper=",
    "http.proxy=",
    "submodule.recurse=false",
    "gc.auto=0",
];

fn argv(options: &[String], words: &[&str]) -> Vec<String> {
    let set = ALWAYS.iter().map(|option| (*option).to_owned()).chain(options.iter().cloned());
    let set = set.flat_map(|option| ["-c".to_owned(), option]);
    ["git".to_owned()].into_iter().chain(set).chain(words.iter().map(|word| (*word).to_owned())).collect()
}

async fn git(fetch: &Fetch<'_>, options: &[String], words: &[&str]) -> Result<ExecEnd, InputError> {
    let env = environment(
        fetch.engine,
        &[
            ("HOME", "/nonexistent"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_ASKPASS", "true"),
        ],
    );
    run(fetch.engine, argv(options, words), env, Bytes::new(), TIMEOUT_MS).await
}

async fn clone(
    fetch: &Fetch<'_>,
    from: &str,
    options: &[String],
    reference: Option<&str>,
) -> Result<Where, InputError> {
    let part = fetch.path(Fetch::PART);
    fetch.engine.host.files().remove(fetch.at(Fetch::PART)).await?;
    // No short cut for one that lies beside: what it links to would be copied with it.
    let mut words = vec!["clone", "--quiet", "--no-local"];
    words.extend(reference.map(|_| "--no-checkout"));
    words.extend(["--", from, &part]);
    well("git", git(fetch, options, &words).await?)?;
    let Some(reference) = reference else { return Ok(Where::Fetched) };
    let checkout = |what| git_checkout(fetch, options, &part, what);
    if checkout(reference).await?.code != Some(0) {
        // No branch and no tag: a commit, perhaps, that neither leads to.
        let words = ["-C", &part, "fetch", "--quiet", "origin", reference];
        well("git", git(fetch, options, &words).await?)?;
        well("git", checkout("FETCH_HEAD").await?)?;
    }
    Ok(Where::Fetched)
}

async fn git_checkout(
    fetch: &Fetch<'_>,
    options: &[String],
    part: &str,
    what: &str,
) -> Result<ExecEnd, InputError> {
    // What is behind `--` would be paths: `what` is none, whatever files there are.
    git(fetch, options, &["-C", part, "checkout", "--quiet", what, "--"]).await
}

/// Beside the repository's own folder. Its history is shared: what the agent commits is there at once.
async fn worktree(fetch: &Fetch<'_>, path: &str, reference: Option<&str>) -> Result<Where, InputError> {
    let files = fetch.engine.host.files();
    let at = fetch.workspace.input(&fetch.input.path);
    let target = format!("{}/{}", fetch.engine.probe.home, at.path);
    files.remove(at).await?;
    let filters = filters(fetch, path).await?;
    well("git", git(fetch, &filters, &["-C", path, "worktree", "prune"]).await?)?;
    let reference = reference.unwrap_or("HEAD");
    let words = ["-C", path, "worktree", "add", "--quiet", "--force", "--detach", "--", &target, reference];
    let end = git(fetch, &filters, &words).await?;
    if end.code != Some(0) {
        return Err(failed("git", &end));
    }
    Ok(Where::InPlace)
}

/// Settings by which the repository's own filters do nothing: they are commands, and anybody who may write in its
/// folder may have named them.
async fn filters(fetch: &Fetch<'_>, path: &str) -> Result<Vec<String>, InputError> {
    let words = ["-C", path, "config", "--includes", "--name-only", "--null", "--get-regexp", "^filter\\."];
    let end = git(fetch, &[], &words).await?;
    // 1: there are none.
    match end.code {
        Some(0) => Ok(disarmed(&end.stdout)),
        Some(1) => Ok(Vec::new()),
        _ => Err(failed("git", &end)),
    }
}

fn disarmed(names: &str) -> Vec<String> {
    let mut filters: Vec<&str> =
        names.split('\0').filter_map(|name| name.rsplit_once('.').map(|(filter, _)| filter)).collect();
    filters.sort_unstable();
    filters.dedup();
    let off = ["smudge=", "clean=", "process=", "required=false"];
    filters.iter().flat_map(|filter| off.map(|off| format!("{filter}.{off}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remote_repository_is_reached_in_one_way_only() {
        let url = Url::parse("https://example.com/r.git").unwrap();
        let at = ["93.184.216.34:443".parse().unwrap(), "[2606:2800::1]:443".parse().unwrap()];
        let options = remote_options(&url, &at);
        let expected = [
            "protocol.https.allow=always",
            "http.followRedirects=false",
            "http.curloptResolve=example.com:443:93.184.216.34,2606:2800::1",
        ];
        assert_eq!(options, expected);
        let all = argv(&options, &["clone", "--", url.as_str(), "/p"]);
        assert_eq!(all[..3], ["git", "-c", "protocol.allow=never"]);
        assert_eq!(all[all.len() - 4..], ["clone", "--", "https://example.com/r.git", "/p"]);
    }

    #[test]
    fn filters_do_nothing() {
        assert_eq!(disarmed(""), Vec::<String>::new());
        let found = disarmed("filter.a.b.smudge\0filter.a.b.clean\0filter.lfs.process\0");
        assert_eq!(
            found,
            [
                "filter.a.b.smudge=",
                "filter.a.b.clean=",
                "filter.a.b.process=",
                "filter.a.b.required=false",
                "filter.lfs.smudge=",
                "filter.lfs.clean=",
                "filter.lfs.process=",
                "filter.lfs.required=false",
            ]
        );
    }
}

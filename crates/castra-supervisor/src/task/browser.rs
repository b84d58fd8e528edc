//! Stand-ins for browsers in a task's PATH: what a tool wants to open in one, a login page say, becomes a line of the
//! agent's log. Refuses whatever is no web page; a browser that a program drives itself is left to it.

use crate::Result;
use crate::host::Files;
use bytes::Bytes;
use castra_proto::shim::relay::At;
use std::collections::BTreeMap;

/// What programs that want a page opened look for. Text browsers are not among them: they are for reading.
const NAMES: [&str; 19] = [
    "xdg-open",
    "gio",
    "open",
    "sensible-browser",
    "x-www-browser",
    "www-browser",
    "gnome-open",
    "kde-open",
    "kde-open5",
    "exo-open",
    "wslview",
    "firefox",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "chromium",
    "chromium-browser",
    "microsoft-edge",
    "brave-browser",
];

/// One for all: it goes by the name that it is called by.
const SCRIPT: &str = r#"#!/bin/sh
# castra: no browser is here. The page that was to be opened is named to the people who wait for this task.
set -f
here=${0%/*}
name=${0##*/}

# The program that really has this name, if there is one.
real() {
    IFS=:
    for dir in $PATH; do
        if [ "$dir" != "$here" ] && [ -f "$dir/$name" ] && [ -x "$dir/$name" ]; then
            unset IFS
            exec "$dir/$name" "$@"
        fi
    done
    unset IFS
}

fail() {
    echo "castra: $name: $1" >&2
    exit 1
}

# In bytes, whatever the language.
plain() (
    LC_ALL=C
    case $1 in
    *[!!-~]* | *\"*) exit 1 ;;
    esac
    [ "${#1}" -le 8192 ]
)

if [ "$name" = gio ] && [ "${1-}" != open ]; then
    real "$@"
    fail 'only `gio open` is here'
fi
url=
for word do
    case $word in
    --headless* | --remote-debugging-* | --version | -version | --help) real "$@" ;;
    [Hh][Tt][Tt][Pp]://?* | [Hh][Tt][Tt][Pp][Ss]://?*) url=${url:-$word} ;;
    esac
done
if [ -z "$url" ]; then
    real "$@"
    fail 'no browser is here, and this is no page (http, https) that somebody else could open'
fi
plain "$url" || fail 'this is no address of a page: it is too long, or has spaces, quotes or other characters in it'
[ -n "${CASTRA_TASK_LOG-}" ] || fail 'no browser is here, and this task has no log to name the page in'
printf 'BROWSER: "%s"\n' "$url" >>"$CASTRA_TASK_LOG" || fail "the page cannot be named in $CASTRA_TASK_LOG"
echo "castra: no browser is here. The people who wait were asked to open the page." >&2
"#;

/// Puts the stand-ins into `folder` (`at` as files have it), which agents in a sandbox cannot write, and in front of
/// everything else in `env`. `log`: the agent's log, absolute.
pub(crate) async fn plant(
    files: &dyn Files,
    at: At,
    folder: &str,
    log: Option<&str>,
    env: &mut BTreeMap<String, String>,
) -> Result<()> {
    files.mkdir(at.clone(), 0o755).await?;
    for name in NAMES {
        let at = At { root: at.root.clone(), path: format!("{}/{name}", at.path) };
        files.put(at, 0o755, false, Bytes::from_static(SCRIPT.as_bytes())).await?;
    }
    set(folder, log, env);
    Ok(())
}

fn set(folder: &str, log: Option<&str>, env: &mut BTreeMap<String, String>) {
    let path = env.get("PATH").map_or_else(|| folder.to_owned(), |path| format!("{folder}:{path}"));
    env.insert("PATH".into(), path);
    // Who named one of their own has a reason.
    env.entry("BROWSER".into()).or_insert_with(|| format!("{folder}/www-browser"));
    if let Some(log) = log {
        env.insert("CASTRA_TASK_LOG".into(), log.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_come_first_and_a_named_browser_stays() {
        let mut env = BTreeMap::from([("PATH".to_owned(), "/usr/bin".to_owned())]);
        set("/b", Some("/w/optio.log"), &mut env);
        let of = |env: &BTreeMap<String, String>, name: &str| env.get(name).cloned();
        assert_eq!(of(&env, "PATH").as_deref(), Some("/b:/usr/bin"));
        assert_eq!(of(&env, "BROWSER").as_deref(), Some("/b/www-browser"));
        assert_eq!(of(&env, "CASTRA_TASK_LOG").as_deref(), Some("/w/optio.log"));
        let mut env = BTreeMap::from([("BROWSER".to_owned(), "mine".to_owned())]);
        set("/b", None, &mut env);
        assert_eq!((of(&env, "BROWSER").as_deref(), of(&env, "CASTRA_TASK_LOG")), (Some("mine"), None));
    }
}

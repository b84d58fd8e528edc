//! A file by its URL, fetched by the host's curl: to addresses that were checked, redirects one by one, broken
//! downloads gone on with while the file is the same. Refuses curl's own configuration and proxies.

use super::exec::{environment, failed, run, said};
use super::{Fetch, InputError};
use crate::task::reach;
use bytes::Bytes;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;
use url::Url;

/// Redirects, one behind the other.
const HOPS: usize = 10;
/// Tries at a download that brings nothing more.
const TRIES: u32 = 5;
/// Before the second one; doubled for each further.
const PAUSE: Duration = Duration::from_millis(500);
/// The largest file, bytes.
const LIMIT: u64 = 64 << 30;
/// Beside what arrives: the head of the last answer, and the mark of the one that brought what is there.
const HEAD: &str = ".head";
const MARK: &str = ".mark";
const TIMEOUT_MS: u64 = 24 * 3_600_000;

/// What one request came to.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// It is there, whole.
    Whole,
    Redirect(String),
    /// It may be gone on with.
    Broken(String),
    /// The rest cannot be had: begun anew.
    Anew,
}

pub(super) async fn fetch(fetch: &Fetch<'_>, url: &str) -> Result<(), InputError> {
    let (mut tries, mut before, mut said) = (0, 0, String::new());
    while tries < TRIES {
        if tries > 0 {
            tokio::time::sleep(PAUSE * 2_u32.pow(tries - 1)).await;
        }
        match hops(fetch, url).await? {
            Answer::Whole => return Ok(()),
            Answer::Broken(why) => said = why,
            Answer::Anew | Answer::Redirect(_) => {
                fetch.engine.host.files().remove(fetch.at(Fetch::PART)).await?;
                said = "what was there of it cannot be gone on with".into();
            }
        }
        fetch.look().await;
        let bytes = fetch.seen.borrow().bytes;
        // What brings the rest nearer may be broken off as often as it likes.
        tries = if bytes > before { 1 } else { tries + 1 };
        before = bytes;
    }
    Err(InputError::BreaksOff { said })
}

async fn hops(fetch: &Fetch<'_>, url: &str) -> Result<Answer, InputError> {
    let files = fetch.engine.host.files();
    let mut url = Url::parse(url).map_err(|_| InputError::Redirect { to: String::new() })?;
    let there = files.stat(fetch.at(Fetch::PART)).await?.map_or(0, |entry| entry.size);
    let known = if there > 0 { validator(fetch).await? } else { None };
    match &known {
        // The next answer may not get as far as saying it again.
        Some(known) => files.put(fetch.at(MARK), 0o600, false, known.clone().into()).await?,
        // Without a mark nobody knows whether the rest belongs to it.
        None => {
            for end in [Fetch::PART, HEAD, MARK] {
                files.remove(fetch.at(end)).await?;
            }
        }
    }
    for _ in 0..HOPS {
        match once(fetch, &url, known.as_deref()).await? {
            Answer::Redirect(to) => {
                let next = url.join(&to).ok().filter(|next| may_follow(&url, next));
                url = next.ok_or(InputError::Redirect { to })?;
            }
            answer => return Ok(answer),
        }
    }
    Err(InputError::Redirect { to: url.host_str().unwrap_or_default().to_owned() })
}

/// Never to another kind of address, nor from a connection that was secured to one that is not.
fn may_follow(from: &Url, to: &Url) -> bool {
    match to.scheme() {
        "https" => to.has_host(),
        "http" => to.has_host() && from.scheme() == "http",
        _ => false,
    }
}

async fn once(fetch: &Fetch<'_>, url: &Url, known: Option<&str>) -> Result<Answer, InputError> {
    let (engine, files) = (fetch.engine, fetch.engine.host.files());
    let addresses = reach::addresses(url, fetch.input.allow_private).await?;
    let config = config(url, &addresses, &fetch.path(Fetch::PART), &fetch.path(HEAD), known);
    let argv = ["curl", "-q", "--config", "-"].map(str::to_owned).to_vec();
    let work = run(engine, argv, environment(engine, &[]), Bytes::from(config), TIMEOUT_MS);
    tokio::pin!(work);
    let mut too_large = fetch.seen.subscribe();
    let end = tokio::select! {
        end = &mut work => end?,
        // Its length was not said, or not the truth. Given up, it is killed.
        _ = too_large.wait_for(|seen| seen.bytes > LIMIT) => {
            return Err(InputError::TooLarge { limit: LIMIT });
        }
    };
    let (status, redirect) = end.stdout.split_once(' ').unwrap_or((&end.stdout, ""));
    let status: u16 = status.trim().parse().unwrap_or_default();
    let answer = judge(end.code, status, redirect.trim(), known.is_some());
    match answer {
        Some(Answer::Redirect(to)) => {
            if known.is_none() {
                // The page that says where to go is not what was asked for.
                files.remove(fetch.at(Fetch::PART)).await?;
            }
            Ok(Answer::Redirect(to))
        }
        Some(Answer::Broken(_)) => Ok(Answer::Broken(said(&end))),
        Some(answer) => Ok(answer),
        None if status >= 300 => Err(InputError::Status { status }),
        None if end.code == Some(63) => Err(InputError::TooLarge { limit: LIMIT }),
        None => Err(failed("curl", &end)),
    }
}

/// What an end of curl means. None: there is no use in trying again. Source: curl's manual, "EXIT CODES".
fn judge(code: Option<i32>, status: u16, redirect: &str, rest_only: bool) -> Option<Answer> {
    match (code, status) {
        (_, 301..=303 | 307 | 308) if !redirect.is_empty() => Some(Answer::Redirect(redirect.to_owned())),
        (Some(0), 200 | 203 | 206) => Some(Answer::Whole),
        // The range begins behind the file's end, or the file is another one by now.
        (_, 416) | (Some(33), _) if rest_only => Some(Answer::Anew),
        (_, 408 | 425 | 429 | 500..=599) => Some(Answer::Broken(String::new())),
        // Names, connections, timeouts, empty answers, and what was broken off.
        (Some(5 | 6 | 7 | 16 | 18 | 28 | 35 | 52 | 55 | 56 | 92 | 95), 0 | 200 | 206) => {
            Some(Answer::Broken(String::new()))
        }
        _ => None,
    }
}

/// Read from stdin: no part of it is to be seen in a list of processes.
fn config(url: &Url, addresses: &[SocketAddr], output: &str, head: &str, rest: Option<&str>) -> String {
    let mut out = String::from(
        "silent\nshow-error\nfail\ngloboff\nproto = \"=http,https\"\nnoproxy = \"*\"\nconnect-timeout = 20\n\
         speed-limit = 1\nspeed-time = 60\nwrite-out = \"%{http_code} %{redirect_url}\"\n",
    );
    let mut add = |name: &str, value: &str| {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"");
        let _ = writeln!(out, "{name} = \"{value}\"");
    };
    add("max-filesize", &LIMIT.to_string());
    add("output", output);
    add("dump-header", head);
    let port = url.port_or_known_default().unwrap_or_default();
    let ips: Vec<String> = addresses
        .iter()
        .map(|address| match address {
            SocketAddr::V4(v4) => v4.ip().to_string(),
            SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
        })
        .collect();
    // Of an address in place of a name curl asks nobody.
    if let Some(url::Host::Domain(name)) = url.host() {
        add("resolve", &format!("{name}:{port}:{}", ips.join(",")));
    }
    if let Some(mark) = rest {
        add("continue-at", "-");
        add("header", &format!("If-Range: {mark}"));
    }
    add("url", url.as_str());
    out
}

/// The mark by which a file is known to be the same, of the answer that brought what is there.
async fn validator(fetch: &Fetch<'_>) -> Result<Option<String>, InputError> {
    let files = fetch.engine.host.files();
    let read = async |end: &str| -> Result<Option<String>, InputError> {
        if files.stat(fetch.at(end)).await?.is_none() {
            return Ok(None);
        }
        let text = crate::host::get(files, fetch.at(end), 1 << 20).await?;
        Ok(text.map(|text| String::from_utf8_lossy(&text).into_owned()))
    };
    if let Some(found) = read(HEAD).await?.as_deref().and_then(mark) {
        return Ok(Some(found));
    }
    Ok(read(MARK).await?.filter(|mark| !mark.is_empty()))
}

/// A strong ETag, or the time of its last change, of an answer that brought the file.
fn mark(head: &str) -> Option<String> {
    let status = head.lines().next()?.split_whitespace().nth(1)?;
    let field = |name: &str| {
        head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let printable = |value: &String| !value.is_empty() && value.bytes().all(|b| (b' '..=b'~').contains(&b));
    field("etag")
        .filter(|tag| tag.starts_with('"'))
        .or_else(|| field("last-modified"))
        .filter(|value| matches!(status, "200" | "206") && printable(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_of_curl_means_one_thing() {
        let broken = || Some(Answer::Broken(String::new()));
        for (code, status, redirect, rest_only, means) in [
            (0, 200, "", false, Some(Answer::Whole)),
            (0, 206, "", true, Some(Answer::Whole)),
            (0, 302, "https://b/", false, Some(Answer::Redirect("https://b/".into()))),
            (33, 302, "https://b/", true, Some(Answer::Redirect("https://b/".into()))),
            (33, 200, "", true, Some(Answer::Anew)),
            (22, 416, "", true, Some(Answer::Anew)),
            (22, 416, "", false, None),
            (22, 404, "", false, None),
            (22, 401, "", true, None),
            (22, 503, "", false, broken()),
            (18, 200, "", false, broken()),
            (56, 206, "", true, broken()),
            (7, 0, "", false, broken()),
            (60, 0, "", false, None),
            (63, 200, "", false, None),
            (23, 200, "", false, None),
        ] {
            assert_eq!(judge(Some(code), status, redirect, rest_only), means, "{code} {status}");
        }
    }

    #[test]
    fn redirects_lead_to_the_same_kind_of_place() {
        let url = |text: &str| Url::parse(text).unwrap();
        for (from, to, may) in [
            ("http://a/", "https://b/", true),
            ("http://a/", "http://b/", true),
            ("https://a/", "http://a/", false),
            ("https://a/", "file:///etc/passwd", false),
            ("https://a/", "gopher://a/", false),
        ] {
            assert_eq!(may_follow(&url(from), &url(to)), may, "{from} {to}");
        }
    }

    #[test]
    fn curl_is_told_where_to_go_and_nothing_of_it_is_a_word_of_its_own() {
        let url = Url::parse("https://example.com:8443/a%20b?q=\"x\"&t=\\").unwrap();
        let at = ["93.184.216.34:8443".parse().unwrap(), "[2606:2800::1]:8443".parse().unwrap()];
        let text = config(&url, &at, "/c/sessions/1/inputs/0.part", "/c/0.head", Some("\"v1\""));
        let last: Vec<&str> = text.lines().skip(10).collect();
        assert_eq!(
            last,
            [
                "max-filesize = \"68719476736\"",
                "output = \"/c/sessions/1/inputs/0.part\"",
                "dump-header = \"/c/0.head\"",
                "resolve = \"example.com:8443:93.184.216.34,[2606:2800::1]\"",
                "continue-at = \"-\"",
                "header = \"If-Range: \\\"v1\\\"\"",
                "url = \"https://example.com:8443/a%20b?q=%22x%22&t=\\\\\"",
            ]
        );
        let text = config(&url, &at, "/p", "/h", None);
        assert!(!text.contains("continue-at") && !text.contains("If-Range"));
    }

    #[test]
    fn only_a_strong_mark_is_one() {
        for (head, found) in [
            ("HTTP/1.1 200 OK\r\nETag: \"a\"\r\nLast-Modified: x\r\n\r\n", Some("\"a\"")),
            ("HTTP/1.1 200 OK\r\netag: W/\"a\"\r\nLast-Modified: Sat\r\n\r\n", Some("Sat")),
            ("HTTP/1.1 200 OK\r\nETag: W/\"a\"\r\n\r\n", None),
            ("HTTP/1.1 200 OK\r\nETag: \"a\x01\"\r\n\r\n", None),
            ("HTTP/2 206 \r\nlast-modified: Sat\r\n\r\n", Some("Sat")),
            ("HTTP/1.1 302 Found\r\nETag: \"a\"\r\n\r\n", None),
            ("", None),
        ] {
            assert_eq!(mark(head).as_deref(), found, "{head:?}");
        }
    }
}

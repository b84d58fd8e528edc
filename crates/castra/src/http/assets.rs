//! The built-in page: its files, as the binary holds them. The same for everybody; nothing of the user is in them.
//!
//! Files live under a path with the hash of all of them, so that browsers may keep them for good and a page never
//! meets another version's script.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::sync::LazyLock;

/// What the page may do: run our own scripts and talk to us. xterm.js sets the colours of its rows by a style
/// element of its own, so styles may be inline; scripts never.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; \
    img-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

struct File {
    name: &'static str,
    media: &'static str,
    bytes: &'static [u8],
}

macro_rules! files {
    ($($name:literal $path:literal: $media:expr,)*) => {
        &[$(File {
            name: $name,
            media: $media,
            bytes: include_bytes!(concat!("../../assets/", $path)),
        },)*]
    };
}

const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

const FILES: &[File] = files! {
    "terminal.js" "terminal.js": SCRIPT,
    "connection.js" "connection.js": SCRIPT,
    "sign-in.js" "sign-in.js": SCRIPT,
    "keys.js" "keys.js": SCRIPT,
    "fit.js" "fit.js": SCRIPT,
    "terminal.css" "terminal.css": STYLE,
    "icon.svg" "icon.svg": "image/svg+xml",
    "xterm.mjs" "xterm/xterm.mjs": SCRIPT,
    "xterm.css" "xterm/xterm.css": STYLE,
    "addon-fit.mjs" "xterm/addon-fit.mjs": SCRIPT,
    "xterm-licence.txt" "xterm/LICENSE": "text/plain; charset=utf-8",
};

/// The page of one terminal, with the place of the files left open.
const PAGE: &str = include_str!("../../assets/terminal.html");
const PLACE: &str = "ASSETS";

/// Names this version of the files.
pub(super) static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mut all = Sha256::new();
    for file in FILES {
        all.update(file.name);
        all.update(file.bytes);
    }
    hex(&all.finalize()[..8])
});

static TERMINAL: LazyLock<(Bytes, String)> = LazyLock::new(|| {
    let page = PAGE.replace(PLACE, &format!("/api/v1/assets/{}", *VERSION));
    let tag = format!("\"{}\"", hex(&Sha256::digest(&page)[..8]));
    (page.into(), tag)
});

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Into a string; cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The page of a terminal; 304 for who has it.
pub(super) fn terminal_page(headers: &HeaderMap) -> Response {
    let (page, tag) = &*TERMINAL;
    let held = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let known =
        held.flat_map(|value| value.split(',')).any(|held| held.trim().trim_start_matches("W/") == tag);
    let mut response = Response::new(if known { Body::empty() } else { page.clone().into() });
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let set = response.headers_mut();
    set.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    set.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    set.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(tag) = HeaderValue::from_str(tag) {
        set.insert(header::ETAG, tag);
    }
    response
}

/// A file of this version; none for another version's and for what is not there.
pub(super) fn file(version: &str, name: &str) -> Option<Response> {
    let file = FILES.iter().find(|file| file.name == name && version == *VERSION)?;
    let mut response = Response::new(file.bytes.into());
    let set = response.headers_mut();
    set.insert(header::CONTENT_TYPE, HeaderValue::from_static(file.media));
    set.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"));
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    /// Every `ASSETS/…` of the page and every `./…` of a script, as names of files.
    fn named() -> BTreeSet<String> {
        let quoted = |text: &str, start: &str| -> Vec<String> {
            let rest = text.split(start).skip(1);
            rest.map(|rest| rest.split(['"', '\'']).next().unwrap_or_default().to_owned()).collect()
        };
        let mut names: BTreeSet<_> = quoted(PAGE, "ASSETS/").into_iter().collect();
        for file in FILES.iter().filter(|file| file.media == SCRIPT && file.name.ends_with(".js")) {
            names.extend(quoted(std::str::from_utf8(file.bytes).unwrap(), "from \"./"));
        }
        names
    }

    #[test]
    fn what_the_page_names_is_there_and_nothing_else() {
        let served: BTreeSet<_> = FILES.iter().map(|file| file.name.to_owned()).collect();
        let mut named = named();
        named.insert("xterm-licence.txt".into());
        assert_eq!(named, served);
        for name in &served {
            assert!(file(&VERSION, name).is_some() && file("0", name).is_none(), "{name}");
        }
        assert!(file(&VERSION, "../Cargo.toml").is_none());
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets");
        let count = |folder: &Path| {
            std::fs::read_dir(folder).unwrap().filter(|e| e.as_ref().unwrap().path().is_file()).count()
        };
        assert_eq!(count(&folder) + count(&folder.join("xterm")), FILES.len() + 1, "and the page");
    }

    #[test]
    fn no_script_is_inline_and_nothing_comes_from_elsewhere() {
        for part in PAGE.split('<').filter(|part| part.starts_with("script")) {
            assert!(part.contains("src=\"ASSETS/") && part.trim_end().ends_with('>'), "{part}");
        }
        assert!(!PAGE.contains(" on") && !PAGE.contains("style=") && !PAGE.contains("://"));
        let own = FILES.iter().filter(|file| file.name.ends_with(".js"));
        for file in own {
            let text = std::str::from_utf8(file.bytes).unwrap();
            for word in
                ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"]
            {
                assert!(!text.contains(word), "{}: {word}", file.name);
            }
        }
    }

    #[test]
    fn a_page_that_is_known_is_not_sent_again() {
        let ask = |held: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(held) = held {
                headers.insert(header::IF_NONE_MATCH, held.parse().unwrap());
            }
            terminal_page(&headers)
        };
        let fresh = ask(None);
        assert_eq!(fresh.status(), 200);
        let tag = fresh.headers()[header::ETAG].to_str().unwrap().to_owned();
        for (held, status) in [(tag.clone(), 304), (format!("\"x\", W/{tag}"), 304), ("\"x\"".into(), 200)] {
            assert_eq!(ask(Some(&held)).status(), status, "{held}");
        }
    }
}

//! Whether a request was meant for us: Host, Origin and fetch metadata against literals. Refuses to know tokens.
//!
//! DNS rebinding needs a Host that is a name of the attacker's; a page needs an Origin. Both are compared with
//! the few spellings of the address that the connection really came in by, never by prefix or pattern.

use super::auth::Peer;
use super::refusal::Refusal;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use castra_proto::ErrorCode;
use std::net::SocketAddr;

/// The Host of requests over the Unix socket.
pub const UNIX_HOST: &str = "castra";

/// Refuses with 421 what was sent to another name, with 403 what a page of another origin sent.
pub(super) fn check(peer: Peer, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    let host = one(headers, &header::HOST).map_err(|()| misdirected("the request has more than one Host"))?;
    let host = host.ok_or_else(|| misdirected("the request has no Host"))?;
    let for_us =
        is_ours(peer, host) && uri.authority().is_none_or(|authority| is_ours(peer, authority.as_str()));
    if !for_us {
        return Err(misdirected(format!("castra does not answer for the host `{}`", host.escape_debug())));
    }
    let origin = one(headers, &header::ORIGIN).map_err(|()| foreign("more than one Origin"))?;
    match origin {
        None => {}
        // Scheme, host and port, exactly as this request names them: `null`, a lookalike and another port differ.
        Some(origin)
            if origin.strip_prefix("http://").is_some_and(|rest| rest.eq_ignore_ascii_case(host)) => {}
        Some(origin) => return Err(foreign(&format!("Origin `{}`", origin.escape_debug()))),
    }
    match one(headers, &header::HeaderName::from_static("sec-fetch-site")) {
        // `same-site` is another port of this machine; only our own pages and the address bar are left.
        Ok(None | Some("same-origin" | "none")) => Ok(()),
        _ => Err(foreign("a page of another site")),
    }
}

/// Whether a browser says that one of our own pages sent this; to be asked after [`check`].
pub(super) fn is_own_page(headers: &HeaderMap) -> bool {
    // An Origin that passed is ours. A page's GET has none, but says where it comes from.
    headers.contains_key(header::ORIGIN)
        || headers.get("sec-fetch-site").is_some_and(|site| site.as_bytes() == b"same-origin")
}

/// The only value of a header, if it is there; an error when there are several or it is no text.
fn one<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Result<Option<&'a str>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| ()),
        (Some(_), Some(_)) => Err(()),
    }
}

fn is_ours(peer: Peer, host: &str) -> bool {
    match peer {
        Peer::Unix { .. } => host == UNIX_HOST,
        Peer::Tcp { local } => literals(local).iter().any(|literal| literal.eq_ignore_ascii_case(host)),
    }
}

/// The spellings of the address that a connection came in by.
fn literals(local: SocketAddr) -> Vec<String> {
    let port = local.port();
    let ip = local.ip().to_canonical();
    let mut hosts = vec![SocketAddr::new(ip, port).to_string()];
    if ip.is_loopback() {
        hosts.extend([format!("127.0.0.1:{port}"), format!("[::1]:{port}"), format!("localhost:{port}")]);
    }
    if port == 80 {
        // The default port is left out by every client.
        let bare = hosts.iter().filter_map(|host| host.strip_suffix(":80").map(str::to_owned));
        hosts = bare.collect::<Vec<_>>();
    }
    hosts
}

fn misdirected(detail: impl Into<String>) -> Refusal {
    Refusal::new(ErrorCode::Forbidden, detail)
        .status(StatusCode::MISDIRECTED_REQUEST)
        .hint("use the address that `castra config` shows; behind a tunnel, with the same port")
}

fn foreign(what: &str) -> Refusal {
    Refusal::new(ErrorCode::Forbidden, format!("refused: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: Peer =
        Peer::Tcp { local: SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7000) };

    fn status(peer: Peer, uri: &str, pairs: &[(&'static str, &str)]) -> u16 {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        match check(peer, &uri.parse().unwrap(), &headers) {
            Ok(()) => 200,
            Err(refusal) => refusal.problem().status,
        }
    }

    #[test]
    fn hosts_are_literals() {
        let unix = Peer::Unix { agent: None };
        let lan = Peer::Tcp { local: "192.0.2.7:7000".parse().unwrap() };
        let six = Peer::Tcp { local: "[::1]:7000".parse().unwrap() };
        let mapped = Peer::Tcp { local: "[::ffff:127.0.0.1]:7000".parse().unwrap() };
        let web = Peer::Tcp { local: "127.0.0.1:80".parse().unwrap() };
        let table = [
            (TCP, "127.0.0.1:7000", 200),
            (TCP, "localhost:7000", 200),
            (TCP, "LOCALHOST:7000", 200),
            (TCP, "[::1]:7000", 200),
            (six, "[::1]:7000", 200),
            (mapped, "127.0.0.1:7000", 200),
            (web, "localhost", 200),
            (web, "localhost:80", 421),
            (lan, "192.0.2.7:7000", 200),
            (lan, "localhost:7000", 421),
            (unix, "castra", 200),
            (unix, "localhost", 421),
            (TCP, "castra", 421),
            (TCP, "localhost", 421),
            (TCP, "localhost:7001", 421),
            (TCP, "evil.tld:7000", 421),
            (TCP, "localhost.evil.tld:7000", 421),
            (TCP, "127.0.0.1.evil.tld:7000", 421),
            (TCP, "localhost:7000.evil.tld", 421),
            (TCP, "localhost:7000@evil.tld", 421),
            (TCP, "evil@localhost:7000", 421),
            (TCP, "127.1:7000", 421),
            (TCP, "0.0.0.0:7000", 421),
            (TCP, "localhost.:7000", 421),
            (TCP, "", 421),
        ];
        for (peer, host, expected) in table {
            assert_eq!(status(peer, "/", &[("host", host)]), expected, "{peer:?} {host}");
        }
        assert_eq!(status(TCP, "/", &[]), 421);
        assert_eq!(status(TCP, "/", &[("host", "localhost:7000"), ("host", "evil.tld")]), 421);
        assert_eq!(status(TCP, "http://evil.tld:7000/", &[("host", "localhost:7000")]), 421);
        assert_eq!(status(TCP, "http://localhost:7000/", &[("host", "localhost:7000")]), 200);
    }

    #[test]
    fn only_our_own_origin_is_an_origin() {
        let table = [
            ("http://localhost:7000", 200),
            ("null", 403),
            ("", 403),
            ("http://localhost", 403),
            ("http://localhost:7001", 403),
            ("https://localhost:7000", 403),
            ("http://127.0.0.1:7000", 403),
            ("http://localhost:7000.evil.tld", 403),
            ("http://localhost:7000@evil.tld", 403),
            ("http://localhost.evil.tld:7000", 403),
            ("http://localhost:7000/", 403),
            ("http://evil.tld, http://localhost:7000", 403),
            ("file://", 403),
        ];
        for (origin, expected) in table {
            let headers = [("host", "localhost:7000"), ("origin", origin)];
            assert_eq!(status(TCP, "/", &headers), expected, "{origin}");
        }
        let own = ("origin", "http://localhost:7000");
        assert_eq!(status(TCP, "/", &[("host", "localhost:7000"), own, ("origin", "null")]), 403);
    }

    #[test]
    fn pages_of_other_sites_are_refused_by_fetch_metadata_too() {
        for (site, expected) in
            [("same-origin", 200), ("none", 200), ("same-site", 403), ("cross-site", 403), ("x", 403)]
        {
            let headers = [("host", "localhost:7000"), ("sec-fetch-site", site)];
            assert_eq!(status(TCP, "/", &headers), expected, "{site}");
        }
    }
}

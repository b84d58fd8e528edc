//! Signed-in browsers: a token in two halves, one in a cookie, one in the page. Refuses to know what it allows.
//!
//! Cookies know no ports: whatever else listens on this machine's address is sent them too, an agent's web server
//! among it. So the cookie is one half of the token, which no script reads, and the header `castra-key` the other,
//! which no other origin reads; neither is worth anything alone. The whole is an ordinary API token: it is stored as
//! its hash, survives the daemon, is listed and revoked as others are.

use super::auth::Peer;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use castra_proto::TokenId;
use std::time::Duration;

/// The page's half.
pub(super) const KEY: HeaderName = HeaderName::from_static("castra-key");
/// How long a browser stays signed in.
pub(super) const STAY: Duration = Duration::from_secs(12 * 3600);
/// Of the secret's end: 122 random bits, as in the front.
const KEY_LENGTH: usize = 32;

/// The cookie's name: two daemons on one machine do not sign each other out.
fn name(peer: Peer) -> Option<String> {
    match peer {
        Peer::Tcp { local } => Some(format!("castra-{}", local.port())),
        Peer::Unix { .. } => None,
    }
}

/// A new token's secret as `Set-Cookie` and key. None over the Unix socket, which no browser uses.
pub(super) fn split(peer: Peer, secret: &str) -> Option<(HeaderValue, String)> {
    let (cookie, key) = secret.split_at_checked(secret.len().checked_sub(KEY_LENGTH)?)?;
    let (name, stay) = (name(peer)?, STAY.as_secs());
    let text = format!("{name}={cookie}; Path=/api/v1; Max-Age={stay}; HttpOnly; SameSite=Strict");
    Some((HeaderValue::from_str(&text).ok()?, key.to_owned()))
}

/// The cookie's half, if the request has one.
pub(super) fn cookie(peer: Peer, headers: &HeaderMap) -> Option<&str> {
    let name = name(peer)?;
    let values = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = values.flat_map(|value| value.split(';'));
    pairs.find_map(|pair| pair.trim().strip_prefix(name.as_str())?.strip_prefix('='))
}

/// Both halves, if the page's is there.
pub(super) fn join(cookie: &str, headers: &HeaderMap) -> Option<String> {
    let key = headers.get(KEY)?.to_str().ok()?;
    Some(format!("{cookie}{key}"))
}

/// A browser's token is named after the token that it was made with, and revoked with it.
pub(super) fn token_name(maker: Option<TokenId>) -> String {
    maker.map_or_else(|| "browser".into(), |maker| format!("browser of {maker}"))
}

/// Whether a token is a browser's, of whoever's making.
pub(super) fn is_token_name(name: &str) -> bool {
    name == "browser" || name.starts_with("browser of ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: Peer = Peer::Tcp {
        local: std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7000),
    };

    #[test]
    fn two_halves_are_a_token_again() {
        let secret = format!("castra_{}{}", "a".repeat(32), "b".repeat(32));
        let (set, key) = split(TCP, &secret).unwrap();
        let text = format!(
            "castra-7000=castra_{}; Path=/api/v1; Max-Age=43200; HttpOnly; SameSite=Strict",
            "a".repeat(32)
        );
        assert_eq!((set.to_str().unwrap(), key.as_str()), (text.as_str(), "b".repeat(32).as_str()));
        assert_eq!(split(Peer::Unix { agent: None }, &secret), None);

        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, format!("a=b; {}", &text[..text.find(';').unwrap()]).parse().unwrap());
        let half = cookie(TCP, &headers).unwrap();
        assert_eq!(join(half, &headers), None);
        let half = half.to_owned();
        headers.insert(KEY, key.parse().unwrap());
        assert_eq!(join(&half, &headers), Some(secret));
    }

    #[test]
    fn only_this_ports_cookie_is_read() {
        let table = [
            ("castra-7000=x", Some("x")),
            ("a=1; castra-7000=x; b=2", Some("x")),
            ("castra-7001=x", None),
            ("xcastra-7000=x", None),
            ("castra-70000=x", None),
            ("castra-7000", None),
            ("", None),
        ];
        for (text, expected) in table {
            let headers = HeaderMap::from_iter([(header::COOKIE, text.parse().unwrap())]);
            assert_eq!(cookie(TCP, &headers), expected, "{text}");
        }
    }
}

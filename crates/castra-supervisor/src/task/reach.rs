//! Which addresses castra goes to for somebody who names them: public ones, unless they may say otherwise. Names are
//! looked up here, every address is checked, and whoever connects is given checked ones only, so that a name that means
//! something else a moment later does not lead elsewhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use url::{Host, Url};

/// For a name to be looked up.
const LOOKUP: Duration = Duration::from_secs(20);

/// Why nobody goes there. Says nothing of what a private address holds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreachable {
    #[error("{host} is not a public address")]
    Private { host: String },
    #[error("{host} cannot be looked up: {why}")]
    Unknown { host: String, why: String },
    #[error("the address names no host")]
    NoHost,
}

/// Whether anybody on the internet could have this address. What is not known to be public is not.
///
/// Source: IANA's registries of special-purpose addresses.
pub(crate) fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => v4(ip),
        IpAddr::V6(ip) => v6(ip),
    }
}

fn v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    !matches!(
        (a, b, c),
        // This network, private, loopback, multicast and reserved.
        (0 | 10 | 127 | 224..=255, _, _)
            // Shared by a carrier's customers, link-local (metadata of clouds), private.
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 168, _)
            // Protocols, documentation, relays, benchmarks.
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (198, 18..=19, _)
            | (198, 51, 100)
            | (203, 0, 113)
    )
}

fn v6(ip: Ipv6Addr) -> bool {
    let s = ip.segments();
    let [.., a, b, c, d] = ip.octets();
    match s {
        // An IPv4 address in another spelling, and by a translator.
        [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => v4(Ipv4Addr::new(a, b, c, d)),
        // Protocols and tunnels, documentation, 6to4.
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x2002, ..] | [0x3fff, 0..=0xfff, ..] => false,
        // Of all others only what is given out: 2000::/3.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

/// What can be said before a name is looked up.
pub(crate) fn check_literal(url: &Url) -> Result<(), Unreachable> {
    let private = match url.host().ok_or(Unreachable::NoHost)? {
        Host::Ipv4(ip) => !v4(ip),
        Host::Ipv6(ip) => !v6(ip),
        Host::Domain(name) => {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            name == "localhost" || name.ends_with(".localhost")
        }
    };
    if private {
        Err(Unreachable::Private { host: url.host_str().unwrap_or_default().into() })
    } else {
        Ok(())
    }
}

/// The addresses of a URL's host and port that may be connected to; never none.
pub(crate) async fn addresses(url: &Url, allow_private: bool) -> Result<Vec<SocketAddr>, Unreachable> {
    let host = url.host_str().ok_or(Unreachable::NoHost)?.to_owned();
    let port = url.port_or_known_default().ok_or(Unreachable::NoHost)?;
    let unknown = |why: String| Unreachable::Unknown { host: host.clone(), why };
    let found: Vec<SocketAddr> = match url.host().ok_or(Unreachable::NoHost)? {
        Host::Ipv4(ip) => vec![(ip, port).into()],
        Host::Ipv6(ip) => vec![(ip, port).into()],
        Host::Domain(name) => tokio::time::timeout(LOOKUP, tokio::net::lookup_host((name, port)))
            .await
            .map_err(|_| unknown("no answer".into()))?
            .map_err(|error| unknown(error.to_string()))?
            .collect(),
    };
    if found.is_empty() {
        return Err(unknown("it has no address".into()));
    }
    let allowed: Vec<SocketAddr> =
        found.into_iter().filter(|address| allow_private || is_public(address.ip())).collect();
    if allowed.is_empty() { Err(Unreachable::Private { host }) } else { Ok(allowed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_public_is() {
        let private = "0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.127.255.255 127.0.0.1 127.255.255.255 \
            169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.1 192.0.2.1 192.88.99.1 192.168.1.1 198.18.0.1 \
            198.19.255.255 198.51.100.7 203.0.113.9 224.0.0.1 240.0.0.1 255.255.255.255 :: ::1 ::7f00:1 \
            ::ffff:127.0.0.1 ::ffff:169.254.169.254 64:ff9b::10.0.0.1 64:ff9b:1::1 100::1 2001::1 2001:db8::1 \
            2002:7f00:1:: 3fff::1 fc00::1 fd00:ec2::254 fe80::1 fec0::1 ff02::1 4000::1";
        let public = "1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.1 100.63.255.255 100.128.0.1 126.1.1.1 128.0.0.1 169.253.1.1 \
            172.15.255.255 172.32.0.1 192.0.1.1 192.167.1.1 192.169.1.1 198.17.1.1 198.20.1.1 223.255.255.255 \
            ::ffff:8.8.8.8 64:ff9b::8.8.8.8 2001:4860:4860::8888 2606:4700:4700::1111 2a00:1450::1 3ffe::1";
        for (list, expected) in [(private, false), (public, true)] {
            for text in list.split_whitespace() {
                assert_eq!(is_public(text.parse().unwrap()), expected, "{text}");
            }
        }
    }

    #[test]
    fn an_address_is_private_however_it_is_spelled() {
        for (url, public) in [
            ("http://127.0.0.1/", false),
            ("http://127.1/", false),
            ("http://2130706433/", false),
            ("http://0x7f.0.0.1/", false),
            ("http://[::1]:8080/", false),
            ("http://[::ffff:10.0.0.1]/", false),
            ("http://LOCALHOST./", false),
            ("http://a.localhost/", false),
            ("https://8.8.8.8/", true),
            ("https://example.com/", true),
        ] {
            assert_eq!(check_literal(&Url::parse(url).unwrap()).is_ok(), public, "{url}");
        }
    }

    #[tokio::test]
    async fn whoever_connects_is_given_checked_addresses_only() {
        let of = async |url: &str, private| addresses(&Url::parse(url).unwrap(), private).await;
        let refused = Unreachable::Private { host: "localhost".into() };
        assert_eq!(of("http://localhost:81/", false).await, Err(refused));
        let found = of("http://localhost:81/", true).await.unwrap();
        assert!(found.iter().all(|address| address.ip().is_loopback() && address.port() == 81), "{found:?}");
        assert_eq!(of("https://8.8.8.8/", false).await, Ok(vec![([8, 8, 8, 8], 443).into()]));
        assert!(matches!(of("http://[::1]/", false).await, Err(Unreachable::Private { .. })));
    }
}

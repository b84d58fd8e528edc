//! How the values of settings are written, and what they mean.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

/// How a value is written and what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Absolute, or starting with `~/`; from the environment or a flag also relative to where one is.
    Path,
    /// Several of these, between colons; in the file also as an array.
    Paths,
    Text,
    /// Each with a space and a number behind it; several between colons, in the file also as an array. Of these names;
    /// of labels, where none are given.
    Limits(&'static [&'static str]),
    Bool,
    Count,
    /// Seconds: a number, or one with `s`, `m`, `h`, `d`.
    Seconds,
    /// Bytes: a number, or one with `KB`, `MB`, `GB` (powers of 1000) or `KiB`, `MiB`, `GiB`.
    Bytes,
    /// `ADDRESS:PORT`; port 0 picks a free one.
    Address,
    OneOf(&'static [&'static str]),
}

pub(super) fn parse(kind: Kind, raw: &str, cwd: Option<&Path>, home: Option<&str>) -> Result<Value, String> {
    match kind {
        Kind::Text => Ok(json!(raw)),
        Kind::Limits(names) => {
            let is_named = |name: &String| names.is_empty() || names.contains(&name.as_str());
            let what = if names.is_empty() { "labels".to_owned() } else { names.join(" or ") };
            limits(raw)
                .filter(|limits| limits.keys().all(is_named))
                .map(|_| json!(raw))
                .ok_or_else(|| format!("{what}, each with a space and a number behind it"))
        }
        Kind::Paths => {
            let paths = raw.split(':').filter(|path| !path.is_empty()).map(|path| {
                let path = parse(Kind::Path, path, cwd, home)?;
                path.as_str().map(String::from).ok_or_else(|| "absolute paths between colons".to_owned())
            });
            Ok(json!(paths.collect::<Result<Vec<_>, _>>()?.join(":")))
        }
        Kind::Path => match (raw.strip_prefix("~/"), home, cwd) {
            (Some(rest), Some(home), _) => Ok(json!(Path::new(home).join(rest))),
            _ if Path::new(raw).is_absolute() => Ok(json!(raw)),
            (_, _, Some(cwd)) => Ok(json!(cwd.join(raw))),
            _ => Err("an absolute path".into()),
        },
        Kind::Bool => match raw {
            "true" | "1" | "yes" => Ok(json!(true)),
            "false" | "0" | "no" => Ok(json!(false)),
            _ => Err("true or false".into()),
        },
        Kind::Count => raw.parse::<u64>().map(Value::from).map_err(|_| "a whole number".into()),
        Kind::Seconds => {
            seconds(raw).map(Value::from).ok_or_else(|| "seconds, or a number with s, m, h or d".into())
        }
        Kind::Bytes => bytes(raw).map(Value::from).ok_or_else(|| "bytes, or a number with MB or GB".into()),
        Kind::Address => raw
            .strip_prefix("localhost:")
            .map(|port| format!("127.0.0.1:{port}"))
            .as_deref()
            .unwrap_or(raw)
            .parse::<SocketAddr>()
            .map(|address| json!(address.to_string()))
            .map_err(|_| "an address and port such as 127.0.0.1:8080".into()),
        Kind::OneOf(names) => {
            names.contains(&raw).then(|| json!(raw)).ok_or_else(|| format!("one of {}", names.join(", ")))
        }
    }
}

/// `team=blue 2:user 1` as a table.
pub(super) fn limits(text: &str) -> Option<BTreeMap<String, usize>> {
    let limit = |limit: &str| {
        let (label, number) = limit.trim().rsplit_once(' ')?;
        Some((label.trim().to_owned(), number.parse().ok()?))
    };
    text.split(':').filter(|part| !part.trim().is_empty()).map(limit).collect()
}

/// `90`, `90s`, `5m`, `2h`, `7d` in seconds.
pub fn seconds(text: &str) -> Option<u64> {
    with_unit(text, &[("s", 1), ("m", 60), ("h", 3600), ("d", 86_400), ("", 1)])
}

/// `1000`, `64KiB`, `10GB` in bytes.
pub fn bytes(text: &str) -> Option<u64> {
    const UNITS: &[(&str, u64)] = &[
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("", 1),
    ];
    with_unit(text, UNITS)
}

fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor = units.iter().find(|(name, _)| *name == unit.trim_start()).map(|(_, factor)| *factor)?;
    number.parse::<u64>().ok()?.checked_mul(factor)
}

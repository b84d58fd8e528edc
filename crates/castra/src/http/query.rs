//! Query strings, headers and path names, as handlers want them; every fault is a problem that names it.

use super::refusal::Refusal;
use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use castra_proto::ErrorCode;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use std::str::FromStr;
use std::time::Duration;
use utoipa::IntoParams;

/// The query string. Unknown names have been refused by the gate.
pub(super) struct Query<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let axum::extract::Query(value) =
            axum::extract::Query::try_from_uri(&parts.uri).map_err(|rejection| {
                let detail = std::error::Error::source(&rejection)
                    .map_or_else(|| rejection.to_string(), ToString::to_string);
                Refusal::new(ErrorCode::InvalidRequest, format!("query: {detail}"))
            })?;
        Ok(Self(value))
    }
}

/// `?all`, `?all=true` and `?all=1` are all true.
pub(super) fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
    match &*text {
        "" | "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        other => Err(D::Error::custom(format_args!("`{}` is neither true nor false", other.escape_debug()))),
    }
}

/// How many items a page has where `?limit=` is not given.
pub(super) const fn items<const N: usize>() -> usize {
    N
}

/// The longest `?wait`, in seconds: longer than any proxy keeps a silent connection.
pub(super) const LONGEST_WAIT: u64 = 3600;

/// Of `?wait=`. `again` says how to ask for the same once more.
pub(super) fn wait(seconds: Option<u64>, again: &str) -> Result<Option<Duration>, Refusal> {
    if seconds.is_some_and(|seconds| seconds > LONGEST_WAIT) {
        let detail = format!("wait can be {LONGEST_WAIT} seconds at most");
        return Err(Refusal::new(ErrorCode::InvalidRequest, detail).hint(again));
    }
    Ok(seconds.map(Duration::from_secs))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct WaitQuery {
    /// Seconds to wait for the answer, up to 3600.
    #[param(maximum = 3600)]
    pub(super) wait: Option<u64>,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct RemoveQuery {
    /// Stop it first, if it is not over.
    #[serde(default, deserialize_with = "flag")]
    #[param(default = false)]
    pub(super) force: bool,
}

/// `NAME=VALUE` of `?label=`.
pub(super) fn label(text: &str) -> Result<(String, String), Refusal> {
    let (name, value) = text.split_once('=').ok_or_else(|| {
        Refusal::new(ErrorCode::InvalidRequest, "label must be NAME=VALUE, as ?label=NAME%3DVALUE")
    })?;
    Ok((name.into(), value.into()))
}

/// The names in the path.
pub(super) struct Names(RawPathParams);

impl<S: Send + Sync> FromRequestParts<S> for Names {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let params = RawPathParams::from_request_parts(parts, state).await;
        params.map(Self).map_err(|_| Refusal::new(ErrorCode::InvalidRequest, "the path is not UTF-8"))
    }
}

impl Names {
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value)
    }

    /// An id in its full spelling; anything else does not exist.
    pub(super) fn id<T: FromStr>(&self, name: &str) -> Result<T, Refusal> {
        let text = self.get(name);
        text.parse()
            .map_err(|_| Refusal::new(ErrorCode::NotFound, format!("there is no `{}`", text.escape_debug())))
    }
}

/// `Idempotency-Key`, when it was sent.
#[derive(IntoParams)]
#[into_params(names("Idempotency-Key"), parameter_in = Header)]
pub(super) struct Key(
    /// 1 to 255 ASCII characters of the caller's choice
    pub(super) Option<String>,
);

impl<S: Send + Sync> FromRequestParts<S> for Key {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let mut values = parts.headers.get_all("idempotency-key").iter();
        let Some(value) = values.next() else { return Ok(Self(None)) };
        match value.to_str() {
            Ok(key) if (1..=255).contains(&key.len()) && values.next().is_none() => {
                Ok(Self(Some(key.into())))
            }
            _ => Err(Refusal::new(
                ErrorCode::InvalidRequest,
                "Idempotency-Key must be 1 to 255 visible ASCII characters, once",
            )),
        }
    }
}

/// Whether the caller asked for `text/event-stream`.
pub(super) fn wants_stream(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|part| {
        part.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("text/event-stream")
    })
}

/// Where a reader continues.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) seq: u64,
    /// As it was given: with an id, the mark behind it, or that there was none. A bare number is of this stream.
    pub(super) mark: Option<Option<String>>,
}

/// Where a reader continues: `Last-Event-ID` before `?after=`.
pub(super) fn position(headers: &HeaderMap, after: Option<u64>) -> Result<Option<Position>, Refusal> {
    let after = after.map(|seq| Position { seq, mark: None });
    let Some(value) = headers.get("last-event-id") else { return Ok(after) };
    // An EventSource that has seen no id sends none, or an empty one.
    match value.to_str() {
        Ok("") => Ok(after),
        Ok(text) => {
            let (seq, mark) =
                text.split_once('.').map_or((text, None), |(seq, mark)| (seq, Some(mark.into())));
            let seq = seq.parse().map_err(|_| foreign_id())?;
            Ok(Some(Position { seq, mark: Some(mark) }))
        }
        Err(_) => Err(foreign_id()),
    }
}

fn foreign_id() -> Refusal {
    Refusal::new(ErrorCode::InvalidRequest, "Last-Event-ID is not the id of one of our events")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn the_header_wins_over_the_query() {
        let table = [
            (None, Some((3, None))),
            (Some(""), Some((3, None))),
            (Some("7"), Some((7, Some(None)))),
            (Some("7.3f2a91c0"), Some((7, Some(Some("3f2a91c0".to_owned()))))),
        ];
        for (header, expected) in table {
            let pairs: Vec<_> = header.map(|value| ("last-event-id", value)).into_iter().collect();
            let found = position(&headers(&pairs), Some(3)).unwrap();
            assert_eq!(found, expected.map(|(seq, mark)| Position { seq, mark }), "{header:?}");
        }
        assert!(position(&headers(&[("last-event-id", "seven")]), Some(3)).is_err());
        assert!(position(&headers(&[("last-event-id", "-1")]), None).is_err());
    }

    #[test]
    fn streams_are_asked_for_by_accept() {
        let table = [
            ("text/event-stream", true),
            ("application/json, Text/Event-Stream;q=0.5", true),
            ("*/*", false),
            ("application/json", false),
            ("text/event-streams", false),
        ];
        for (accept, expected) in table {
            assert_eq!(wants_stream(&headers(&[("accept", accept)])), expected, "{accept}");
        }
    }

    #[test]
    fn a_wait_has_an_end() {
        let read = |seconds| wait(seconds, "again").map_err(|refusal| refusal.problem().code);
        assert_eq!(read(None), Ok(None));
        assert_eq!(read(Some(3600)), Ok(Some(Duration::from_secs(3600))));
        assert_eq!(read(Some(3601)), Err(ErrorCode::InvalidRequest));
    }

    #[test]
    fn flags_may_be_bare() {
        #[derive(Deserialize)]
        struct One {
            #[serde(default, deserialize_with = "flag")]
            all: bool,
        }
        let read = |query: &str| {
            let uri = format!("/?{query}").parse().unwrap();
            axum::extract::Query::<One>::try_from_uri(&uri).map(|query| query.0.all).map_err(|_| ())
        };
        let table = [
            ("", Ok(false)),
            ("all", Ok(true)),
            ("all=1", Ok(true)),
            ("all=false", Ok(false)),
            ("all=yes", Err(())),
        ];
        for (query, expected) in table {
            assert_eq!(read(query), expected, "{query}");
        }
    }
}

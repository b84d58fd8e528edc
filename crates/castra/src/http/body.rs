//! Request bodies: read under a limit and a budget, parsed with the refusal that names the fault.

use super::refusal::Refusal;
use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::header;
use bytes::{Bytes, BytesMut};
use castra_proto::ErrorCode;
use http_body_util::BodyExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of large bodies that may be in memory at once, over all connections.
const BUDGET: u64 = 512 << 20;
/// Bodies up to this size are not counted: the number of connections bounds them.
const SMALL: u64 = 1 << 20;
/// Between two pieces of a body.
const PATIENCE: Duration = Duration::from_secs(30);

/// How much of a body this request may send. The gate leaves it in the request.
#[derive(Clone)]
pub(super) struct Intake {
    limit: u64,
    /// KiB.
    budget: Arc<Semaphore>,
}

impl Intake {
    pub(super) fn new() -> Self {
        Self { limit: 0, budget: Arc::new(Semaphore::new((BUDGET >> 10) as usize)) }
    }

    pub(super) fn with_limit(&self, limit: u64) -> Self {
        Self { limit, budget: self.budget.clone() }
    }

    /// Room for the whole body at once: two half-read bodies must not wait for each other.
    fn reserve(&self, length: Option<u64>) -> Result<Option<OwnedSemaphorePermit>, Refusal> {
        let most = length.unwrap_or(self.limit).min(self.limit);
        if most <= SMALL {
            return Ok(None);
        }
        let kib = u32::try_from(most.div_ceil(1024)).unwrap_or(u32::MAX);
        self.budget.clone().try_acquire_many_owned(kib).map(Some).map_err(|_| {
            Refusal::new(ErrorCode::Overloaded, "too many large bodies are being sent at once")
                .hint("try again")
        })
    }
}

/// A body that was read, with its place in the budget.
pub(super) struct Octets {
    pub(super) bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

impl<S: Send + Sync> FromRequest<S> for Octets {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        let intake = request.extensions().get::<Intake>().cloned();
        let intake = intake.ok_or_else(|| Refusal::new(ErrorCode::Internal, "a body without a limit"))?;
        let length = request.headers().get(header::CONTENT_LENGTH);
        let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
        let room = intake.reserve(length)?;
        let bytes = read(request.into_body(), intake.limit).await?;
        Ok(Self { bytes, _room: room })
    }
}

async fn read(mut body: Body, limit: u64) -> Result<Bytes, Refusal> {
    let mut all = BytesMut::new();
    loop {
        let frame = tokio::time::timeout(PATIENCE, body.frame())
            .await
            .map_err(|_| Refusal::new(ErrorCode::Timeout, "the rest of the body did not arrive"))?;
        let Some(frame) = frame else { return Ok(all.freeze()) };
        let frame = frame.map_err(|_| Refusal::new(ErrorCode::InvalidRequest, "the body broke off"))?;
        if let Ok(data) = frame.into_data() {
            if (all.len() + data.len()) as u64 > limit {
                let detail = format!("the body is larger than {limit} bytes");
                return Err(Refusal::new(ErrorCode::TooLarge, detail));
            }
            all.extend_from_slice(&data);
        }
    }
}

/// A JSON body.
pub(super) struct Input<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Input<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        parse(&Octets::from_request(request, state).await?.bytes).map(Self)
    }
}

/// A JSON body that may be left out (or be `null`), and means the default then.
pub(super) struct Optional<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for Optional<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let body = Octets::from_request(request, state).await?.bytes;
        let value = if body.is_empty() { None } else { parse::<Option<T>>(&body)? };
        Ok(Self(value.unwrap_or_default()))
    }
}

/// No body, or an empty object: what a route takes that has nothing to be told.
pub(super) type Nothing = Optional<NoFields>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoFields {}

/// Reads JSON; a refusal names the unknown field, or the line and column.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| {
        let text = error.to_string();
        let code = match text.starts_with("unknown field `") {
            true => ErrorCode::UnknownField,
            false => ErrorCode::InvalidRequest,
        };
        Refusal::new(code, without_value(&text))
    })
}

/// `invalid type: string "SECRET", expected a map`: a text in the wrong place may be a secret in the wrong place.
fn without_value(text: &str) -> Cow<'_, str> {
    let found = ["invalid type: string \"", "invalid value: string \""]
        .iter()
        .find(|start| text.starts_with(**start));
    match found.and_then(|start| Some((start, text.rfind("\", expected")?))) {
        Some((start, end)) => Cow::Owned(format!("{}{}", start.trim_end_matches(" \""), &text[end + 1..])),
        None => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Request;
    use castra_proto::SessionSpec;
    use castra_proto::api::SendMessage;

    fn refused<T: DeserializeOwned>(body: &str) -> (ErrorCode, String) {
        let refusal = parse::<T>(body.as_bytes()).err().expect("refused");
        (refusal.problem().code, refusal.problem().detail.clone())
    }

    #[test]
    fn a_refusal_names_the_field_or_the_place() {
        let (code, detail) = refused::<SendMessage>(r#"{"text":"x","pirority":"now"}"#);
        assert_eq!(code, ErrorCode::UnknownField);
        assert!(detail.starts_with("unknown field `pirority`, expected one of"), "{detail}");
        let (code, detail) = refused::<SessionSpec>(r#"{"limits":{"max_turn":1}}"#);
        assert_eq!(code, ErrorCode::UnknownField);
        assert!(detail.starts_with("unknown field `max_turn`"), "{detail}");
        let (code, detail) = refused::<SessionSpec>("{\n  \"model\": 3\n}");
        assert_eq!(code, ErrorCode::InvalidRequest);
        assert_eq!(detail, "invalid type: integer `3`, expected a string at line 2 column 12");
        let (_, detail) = refused::<SessionSpec>(r#"{"env": "TOKEN=s3cret\", expected \"x"}"#);
        assert_eq!(detail, "invalid type: string, expected a map at line 1 column 38");
        assert_eq!(refused::<NoFields>(r#"{"force":true}"#).0, ErrorCode::UnknownField);
        assert_eq!(refused::<SendMessage>("").0, ErrorCode::InvalidRequest);
        assert_eq!(refused::<SendMessage>("{} {}").0, ErrorCode::InvalidRequest);
    }

    async fn read_all(intake: &Intake, body: Body, length: Option<&str>) -> Result<usize, ErrorCode> {
        let mut request = Request::new(body);
        request.extensions_mut().insert(intake.clone());
        if let Some(length) = length {
            request.headers_mut().insert(header::CONTENT_LENGTH, length.parse().unwrap());
        }
        let octets = Octets::from_request(request, &()).await;
        octets.map(|octets| octets.bytes.len()).map_err(|refusal| refusal.problem().code)
    }

    #[tokio::test]
    async fn a_body_may_be_as_long_as_its_limit_and_no_longer() {
        let intake = Intake::new().with_limit(10);
        assert_eq!(read_all(&intake, Body::from(vec![0; 10]), None).await, Ok(10));
        assert_eq!(read_all(&intake, Body::from(vec![0; 11]), None).await, Err(ErrorCode::TooLarge));
        let pieces =
            futures::stream::iter((0..11).map(|_| Ok::<_, std::io::Error>(Bytes::from_static(b"x"))));
        assert_eq!(read_all(&intake, Body::from_stream(pieces), None).await, Err(ErrorCode::TooLarge));
    }

    #[tokio::test]
    async fn large_bodies_share_a_budget_and_give_it_back() {
        let intake = Intake { limit: 4 << 20, budget: Arc::new(Semaphore::new(5 << 10)) };
        let held = intake.reserve(None).unwrap();
        assert_eq!(read_all(&intake, Body::empty(), None).await, Err(ErrorCode::Overloaded));
        assert_eq!(read_all(&intake, Body::empty(), Some("1048576")).await, Ok(0));
        drop(held);
        assert_eq!(read_all(&intake, Body::empty(), None).await, Ok(0));
        assert_eq!(intake.budget.available_permits(), 5 << 10);
    }

    #[tokio::test]
    async fn an_optional_body_may_be_absent_but_not_wrong() {
        let read = async |body: &'static str| {
            let mut request = Request::new(Body::from(body));
            request.extensions_mut().insert(Intake::new().with_limit(100));
            let read = Optional::<castra_proto::api::Fork>::from_request(request, &()).await;
            read.map(|Optional(fork)| fork.name).map_err(|refusal| refusal.problem().code)
        };
        assert_eq!(read("").await, Ok(None));
        assert_eq!(read("null").await, Ok(None));
        assert_eq!(read("{}").await, Ok(None));
        assert_eq!(read(r#"{"name":"x"}"#).await, Ok(Some("x".into())));
        assert_eq!(read(r#"{"nam":"x"}"#).await, Err(ErrorCode::UnknownField));
        assert_eq!(read("[").await, Err(ErrorCode::InvalidRequest));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_arriving_is_given_up() {
        let intake = Intake::new().with_limit(10);
        let body = Body::from_stream(futures::stream::pending::<std::io::Result<Bytes>>());
        assert_eq!(read_all(&intake, body, None).await, Err(ErrorCode::Timeout));
    }
}

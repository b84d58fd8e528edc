//! The requests that were received: a ring in memory, and optionally a file of JSON lines. Owns masking;
//! refuses to keep a secret, more than `KEPT` requests, or more than `KEPT_BYTES` of bodies.

use crate::request::ToolResult;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use tokio::io::AsyncWriteExt as _;

/// Requests kept in memory; older ones are dropped.
pub const KEPT: usize = 1000;
/// Bytes of bodies kept in memory; one larger than this is logged without its body.
pub const KEPT_BYTES: usize = 32 * 1024 * 1024;

/// Headers whose values are shown as `***` and their last four characters.
const SECRET: [&str; 5] = ["authorization", "proxy-authorization", "x-api-key", "cookie", "set-cookie"];

/// One request, as `GET /_castra/requests` and the log file show it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RequestLog {
    /// 1-based, over all requests since the start.
    pub n: u64,
    /// Unix time in milliseconds.
    pub at_ms: u64,
    pub method: String,
    /// With its query.
    pub path: String,
    /// Names in lower case; secrets masked. Of a repeated header the last value.
    pub headers: BTreeMap<String, String>,
    /// The status that was answered.
    pub status: u16,
    /// The rule that answered.
    pub rule: Option<String>,
    /// What kind of side call of the CLI this was, if one: `title`, `compact` …
    pub side: Option<String>,
    /// claude's session id, empty where the caller sent none.
    pub conversation: String,
    /// The number of this call in its conversation, 0 for what is not counted.
    pub call: u64,
    pub model: Option<String>,
    pub stream: bool,
    /// How many messages the request holds.
    pub messages: usize,
    /// The last text that the user wrote, the CLI's reminders left out.
    pub last_user: Option<String>,
    /// The results after the last assistant message.
    pub tool_results: Vec<ToolResult>,
    pub body_bytes: usize,
    /// The whole body as it came, where it was JSON and not too large to keep.
    pub body: Option<Box<RawValue>>,
}

impl RequestLog {
    /// The body as a tree; `null` where none was kept.
    pub fn json(&self) -> serde_json::Value {
        self.body
            .as_ref()
            .and_then(|body| serde_json::from_str(body.get()).ok())
            .unwrap_or(serde_json::Value::Null)
    }

    /// Whether this was `POST /v1/messages`.
    pub fn is_messages_call(&self) -> bool {
        self.method == "POST" && self.path.split('?').next() == Some("/v1/messages")
    }
}

/// The ring.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    entries: VecDeque<Arc<RequestLog>>,
    bytes: usize,
}

impl Ring {
    pub(crate) fn push(&mut self, entry: Arc<RequestLog>) {
        self.bytes += weight(&entry);
        self.entries.push_back(entry);
        while self.entries.len() > KEPT || self.bytes > KEPT_BYTES {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.bytes -= weight(&oldest);
        }
    }

    pub(crate) fn list(&self) -> Vec<Arc<RequestLog>> {
        self.entries.iter().cloned().collect()
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Body, and what was copied out of it.
fn weight(entry: &RequestLog) -> usize {
    let body = entry.body.as_ref().map_or(0, |body| body.get().len());
    let results: usize = entry.tool_results.iter().map(|result| result.text.len()).sum();
    let headers: usize = entry.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    body + results + headers + entry.last_user.as_ref().map_or(0, String::len)
}

/// The body for the log, if it is JSON and its weight leaves room for others.
pub(crate) fn kept_body(bytes: &[u8]) -> Option<Box<RawValue>> {
    if bytes.is_empty() || bytes.len() > KEPT_BYTES / 4 {
        return None;
    }
    serde_json::from_slice(bytes).ok()
}

pub(crate) fn masked(headers: &axum::http::HeaderMap) -> BTreeMap<String, String> {
    let one = |(name, value): (&axum::http::HeaderName, &axum::http::HeaderValue)| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        let value = if SECRET.contains(&name.as_str()) { mask(&value) } else { value };
        (name.as_str().to_owned(), value)
    };
    headers.iter().map(one).collect()
}

/// The last four characters tell two keys apart; a short secret shows nothing.
fn mask(secret: &str) -> String {
    let count = secret.chars().count();
    let tail: String = if count < 16 { String::new() } else { secret.chars().skip(count - 4).collect() };
    format!("***{tail}")
}

/// The file of JSON lines. One request is one write, so that lines of two servers do not mix.
#[derive(Debug)]
pub(crate) struct LogFile {
    file: tokio::sync::Mutex<tokio::fs::File>,
}

impl LogFile {
    /// Appends; a new file is made with mode 0600.
    pub(crate) async fn open(path: &Path) -> std::io::Result<Self> {
        let mut options = tokio::fs::OpenOptions::new();
        options.create(true).append(true);
        #[cfg(unix)]
        options.mode(0o600);
        Ok(Self { file: tokio::sync::Mutex::new(options.open(path).await?) })
    }

    pub(crate) async fn append(&self, entry: &RequestLog) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        let mut file = self.file.lock().await;
        file.write_all(&line).await?;
        file.flush().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(n: u64, body: usize) -> Arc<RequestLog> {
        let text = format!("\"{}\"", "x".repeat(body));
        Arc::new(RequestLog {
            n,
            at_ms: 0,
            method: "POST".into(),
            path: "/v1/messages?beta=true".into(),
            headers: BTreeMap::new(),
            status: 200,
            rule: None,
            side: None,
            conversation: String::new(),
            call: 0,
            model: None,
            stream: false,
            messages: 0,
            last_user: None,
            tool_results: Vec::new(),
            body_bytes: text.len(),
            body: kept_body(text.as_bytes()),
        })
    }

    fn numbers(ring: &Ring) -> Vec<u64> {
        ring.list().iter().map(|entry| entry.n).collect()
    }

    #[test]
    fn the_ring_is_bounded_by_count() {
        let mut ring = Ring::default();
        (1..=KEPT as u64 + 3).for_each(|n| ring.push(entry(n, 1)));
        assert_eq!(numbers(&ring), (4..=KEPT as u64 + 3).collect::<Vec<_>>());
        ring.clear();
        assert_eq!((numbers(&ring), ring.bytes), (vec![], 0));
    }

    #[test]
    fn the_ring_is_bounded_by_bytes() {
        let mut ring = Ring::default();
        (1..=5).for_each(|n| ring.push(entry(n, KEPT_BYTES / 4 - 2)));
        assert_eq!(numbers(&ring), [2, 3, 4, 5]);
        assert_eq!(ring.bytes, KEPT_BYTES);
        ring.push(entry(6, KEPT_BYTES / 4));
        assert!(ring.list().last().is_some_and(|entry| entry.body.is_none() && entry.json().is_null()));
    }

    #[test]
    fn secrets_are_masked() {
        let table = [
            ("sk-ant-api03-abcdefgh1234", "***1234"),
            ("Bearer sk-ant-oat01-zzzz9876", "***9876"),
            ("short", "***"),
            ("", "***"),
        ];
        assert_eq!(table.map(|(secret, _)| mask(secret)), table.map(|(_, want)| want.to_owned()));
    }
}

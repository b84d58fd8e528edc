//! The calls of design.md §10, one function each. `session` may be an id, a unique prefix or a name.

use super::{Call, Client, Error, SseParser, escape};
use bytes::Bytes;
use castra_proto::api::*;
use castra_proto::permission::{PermissionAnswer, PermissionRequest};
use castra_proto::{Event, MessageId, Session, SessionSpec};
use http_body_util::BodyExt as _;
use hyper::Method;
use hyper::body::Incoming;
use serde_json::{Value, json};

pub(super) const V1: &str = "/api/v1";

fn session_path(session: &str, rest: &str) -> String {
    format!("{V1}/sessions/{}{rest}", escape(session))
}

/// Lists come as `{items, next}`; a bare array is a list too.
fn items(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items,
        Value::Object(mut object) => match object.remove("items") {
            Some(Value::Array(items)) => items,
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

/// `event: problem` of a stream.
pub(super) fn refused(data: &[u8], garbled: impl FnOnce(String) -> Error) -> Error {
    match serde_json::from_slice(data) {
        Ok(problem) => Error::Refused(Box::new(problem)),
        Err(error) => garbled(error.to_string()),
    }
}

/// An answer's body in pieces.
pub struct Download {
    body: Incoming,
    attachment: bool,
}

impl Download {
    /// Not a folder's entries.
    pub fn is_file(&self) -> bool {
        self.attachment
    }

    pub async fn next(&mut self) -> Result<Option<Bytes>, hyper::Error> {
        while let Some(frame) = self.body.frame().await {
            if let Ok(data) = frame?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

impl Client {
    pub async fn health(&self) -> Result<Value, Error> {
        self.read(Call::get("/healthz")).await
    }

    /// `key` makes it safe to repeat.
    pub async fn create(&self, spec: &SessionSpec, key: &str) -> Result<Session, Error> {
        self.read(Call::post(format!("{V1}/sessions")).json(spec)?.key(key)?).await
    }

    /// All pages.
    pub async fn sessions(&self, all: bool, label: Option<&str>) -> Result<Vec<Session>, Error> {
        let mut found = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut path = format!("{V1}/sessions?all={all}");
            for (name, value) in [("label", label), ("cursor", cursor.as_deref())] {
                if let Some(value) = value {
                    path.push_str(&format!("&{name}={}", escape(value)));
                }
            }
            let page: Page<Session> = self.read(Call::get(path)).await?;
            found.extend(page.items);
            match page.next {
                Some(next) => cursor = Some(next),
                None => return Ok(found),
            }
        }
    }

    pub async fn show(&self, session: &str) -> Result<Session, Error> {
        self.read(Call::get(session_path(session, ""))).await
    }

    pub async fn remove(&self, session: &str, force: bool) -> Result<(), Error> {
        let call = Call::new(Method::DELETE, session_path(session, &format!("?force={force}")));
        self.read::<Value>(call).await.map(drop)
    }

    pub async fn send(
        &self,
        session: &str,
        message: &SendMessage,
        key: &str,
    ) -> Result<MessageAccepted, Error> {
        self.read(Call::post(session_path(session, "/messages")).json(message)?.key(key)?).await
    }

    pub async fn message(&self, session: &str, message: MessageId) -> Result<Message, Error> {
        self.read(Call::get(session_path(session, &format!("/messages/{message}")))).await
    }

    pub async fn withdraw(&self, session: &str, message: MessageId) -> Result<Value, Error> {
        self.read(Call::new(Method::DELETE, session_path(session, &format!("/messages/{message}")))).await
    }

    pub async fn events(&self, session: &str, after: u64, limit: usize) -> Result<Page<Event>, Error> {
        let path = session_path(session, &format!("/events?after={after}&limit={limit}"));
        self.read(Call::get(path)).await
    }

    pub async fn permissions(&self, session: &str) -> Result<Vec<PermissionRequest>, Error> {
        let found: Value = self.read(Call::get(session_path(session, "/permissions"))).await?;
        items(found)
            .into_iter()
            .map(|item| {
                serde_json::from_value(item).map_err(|error| Error::Answer {
                    target: self.target().to_string(),
                    status: hyper::StatusCode::OK,
                    detail: error.to_string(),
                })
            })
            .collect()
    }

    pub async fn answer_permission(
        &self,
        session: &str,
        request: &str,
        answer: &PermissionAnswer,
    ) -> Result<PermissionRequest, Error> {
        let path = session_path(session, &format!("/permissions/{}", escape(request)));
        self.read(Call::post(path).json(answer)?).await
    }

    pub async fn resume(&self, session: &str, resume: &Resume) -> Result<Session, Error> {
        self.read(Call::post(session_path(session, "/resume")).json(resume)?).await
    }

    /// `interrupt`, `stop` or `clear`: the session after it.
    pub async fn act(&self, session: &str, verb: &str) -> Result<Session, Error> {
        self.read(Call::post(session_path(session, &format!("/{verb}")))).await
    }

    pub async fn fork(&self, session: &str, fork: &Fork) -> Result<Session, Error> {
        self.read(Call::post(session_path(session, "/fork")).json(fork)?).await
    }

    pub async fn control(&self, session: &str, control: &Control) -> Result<ControlAnswer, Error> {
        self.read(Call::post(session_path(session, "/control")).json(control)?).await
    }

    pub async fn info(&self, session: &str) -> Result<Value, Error> {
        self.read(Call::get(session_path(session, "/info"))).await
    }

    /// What a terminal session shows.
    pub async fn screen(&self, session: &str) -> Result<Screen, Error> {
        self.read(Call::get(session_path(session, "/screen"))).await
    }

    /// Keys by name, and text.
    pub async fn keys(&self, session: &str, keys: &Keys) -> Result<(), Error> {
        self.read::<Value>(Call::post(session_path(session, "/keys")).json(keys)?).await.map(drop)
    }

    pub async fn put_file(&self, session: &str, path: &str, content: Bytes) -> Result<(), Error> {
        let target = session_path(session, &format!("/files?path={}", escape(path)));
        self.read::<Value>(Call::post(target).bytes(content)).await.map(drop)
    }

    pub async fn get_file(&self, session: &str, path: &str) -> Result<Download, Error> {
        self.download(session_path(session, &format!("/files?path={}", escape(path)))).await
    }

    pub async fn list_files(&self, session: &str, path: &str) -> Result<Vec<Value>, Error> {
        // A final slash says that a folder is meant.
        let path = format!("{}/", path.trim_end_matches('/'));
        let call = Call::get(session_path(session, &format!("/files?path={}", escape(&path))));
        self.read(call).await.map(items)
    }

    pub async fn export(&self, session: &str, format: &str, follow: bool) -> Result<Download, Error> {
        self.download(session_path(session, &format!("/export?format={format}&follow={follow}"))).await
    }

    pub async fn raw_log(&self, session: &str, direction: &str, follow: bool) -> Result<Download, Error> {
        self.download(session_path(session, &format!("/log?direction={direction}&follow={follow}"))).await
    }

    pub(super) async fn download(&self, path: String) -> Result<Download, Error> {
        let answer = self.answer(Call::get(path)).await?;
        let attachment = answer.headers().contains_key(hyper::header::CONTENT_DISPOSITION);
        Ok(Download { body: answer.into_body(), attachment })
    }

    pub async fn transcripts(&self, cwd: Option<&str>, limit: usize) -> Result<Vec<Value>, Error> {
        let mut path = format!("{V1}/transcripts?limit={limit}");
        if let Some(cwd) = cwd {
            path.push_str(&format!("&cwd={}", escape(cwd)));
        }
        self.read(Call::get(path)).await.map(items)
    }

    pub async fn adopt(&self, claude_id: &str, spec: &SessionSpec) -> Result<Session, Error> {
        let path = format!("{V1}/transcripts/{}/adopt", escape(claude_id));
        self.read(Call::post(path).json(spec)?).await
    }

    pub async fn create_token(&self, request: &CreateToken) -> Result<CreatedToken, Error> {
        self.read(Call::post(format!("{V1}/tokens")).json(request)?).await
    }

    pub async fn tokens(&self) -> Result<Vec<Value>, Error> {
        self.read(Call::get(format!("{V1}/tokens"))).await.map(items)
    }

    pub async fn delete_token(&self, id: &str) -> Result<(), Error> {
        let path = format!("{V1}/tokens/{}", escape(id));
        self.read::<Value>(Call::new(Method::DELETE, path)).await.map(drop)
    }

    /// A link's ticket: signs one browser in.
    pub async fn create_ticket(&self, request: &CreateTicket) -> Result<Ticket, Error> {
        self.read(Call::post(format!("{V1}/sign-in/tickets")).json(request)?).await
    }

    pub async fn claude_versions(&self) -> Result<Vec<Value>, Error> {
        self.read(Call::get(format!("{V1}/claude"))).await.map(items)
    }

    /// Installs one; `progress` is called with each line of it.
    pub async fn claude_install(
        &self,
        version: Option<&str>,
        mut progress: impl FnMut(&str),
    ) -> Result<Value, Error> {
        let call = Call::post(format!("{V1}/claude"))
            .json(&json!({ "version": version }))?
            .accept("text/event-stream");
        let mut body = self.answer(call).await?.into_body();
        let mut parser = SseParser::default();
        let garbled = |detail: String| Error::Answer {
            target: self.target().to_string(),
            status: hyper::StatusCode::OK,
            detail,
        };
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|source| Error::Lost { target: self.target().to_string(), source })?;
            let Some(bytes) = frame.data_ref() else { continue };
            for frame in parser.push(bytes).map_err(|error| garbled(error.to_string()))? {
                let value: Value =
                    serde_json::from_slice(&frame.data).map_err(|error| garbled(error.to_string()))?;
                match frame.event.as_deref() {
                    Some("progress") => progress(value.as_str().unwrap_or_default()),
                    Some("problem") => return Err(refused(&frame.data, garbled)),
                    _ => return Ok(value),
                }
            }
        }
        Err(garbled("the installation ended without a word".into()))
    }

    pub async fn claude_remove(&self, version: &str) -> Result<(), Error> {
        let path = format!("{V1}/claude/{}", escape(version));
        self.read::<Value>(Call::new(Method::DELETE, path)).await.map(drop)
    }

    pub async fn doctor(&self) -> Result<Vec<Value>, Error> {
        self.read(Call::get(format!("{V1}/doctor"))).await.map(items)
    }

    pub async fn prune(&self, dry_run: bool) -> Result<Vec<Value>, Error> {
        self.read(Call::post(format!("{V1}/prune?dry_run={dry_run}"))).await.map(items)
    }

    pub async fn check(&self) -> Result<Vec<Value>, Error> {
        self.read(Call::get(format!("{V1}/check"))).await.map(items)
    }

    pub async fn backup(&self, path: &str) -> Result<Value, Error> {
        self.read(Call::post(format!("{V1}/backup")).json(&json!({ "path": path }))?).await
    }

    /// Ends the daemon; sessions live on.
    pub async fn shutdown(&self) -> Result<(), Error> {
        self.read::<Value>(Call::post(format!("{V1}/shutdown"))).await.map(drop)
    }
}

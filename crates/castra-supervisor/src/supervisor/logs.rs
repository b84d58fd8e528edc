//! The whole stream of a session: exports in several shapes, and the exact bytes of the record logs.

use super::{Direction, ExportFormat, Supervisor};
use crate::engine::Engine;
use crate::frame::{ByteStream, encode_stored};
use crate::host::{LogReader, RunDir};
use crate::session::launch::Place;
use crate::{Result, redact};
use bytes::Bytes;
use castra_claude::message::Message;
use castra_proto::shim::Stream;
use castra_proto::shim::relay::At;
use castra_proto::{Kind, OwnKind, SessionId};
use castra_store::StoredEvent;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Pieces that wait for a slow reader; the producer waits then.
const PIECES: usize = 8;
const BATCH: (u32, usize) = (2000, 1 << 20);
const PIECE_BYTES: u64 = 256 << 10;

type Out = mpsc::Sender<Result<Bytes>>;

impl Supervisor {
    /// The whole stream; with `follow` until the run's exit.
    pub async fn export(&self, id: SessionId, format: ExportFormat, follow: bool) -> Result<ByteStream> {
        self.row(id).await?;
        let (out, stream) = mpsc::channel(PIECES);
        let engine = self.engine.clone();
        tokio::spawn(async move {
            let done = match format {
                ExportFormat::Transcript => transcript(&engine, id, &out).await,
                _ => events(&engine, id, format, follow, &out).await,
            };
            if let Err(error) = done {
                let _ = out.send(Err(error)).await;
            }
        });
        Ok(stream)
    }

    /// The exact bytes of the record logs, secrets of the spec masked.
    pub async fn raw_log(&self, id: SessionId, direction: Direction, follow: bool) -> Result<ByteStream> {
        let row = self.row(id).await?;
        let secrets = redact::strings(&self.engine.spec(id, &row.spec).await?);
        let (out, stream) = mpsc::channel(PIECES);
        let engine = self.engine.clone();
        tokio::spawn(async move {
            if let Err(error) = raw(&engine, id, direction, follow, &secrets, &out).await {
                let _ = out.send(Err(error)).await;
            }
        });
        Ok(stream)
    }
}

/// Nobody reads any more: that is an end, not an error.
async fn put(out: &Out, bytes: impl Into<Bytes>) -> bool {
    out.send(Ok(bytes.into())).await.is_ok()
}

async fn events(
    engine: &Arc<Engine>,
    id: SessionId,
    format: ExportFormat,
    follow: bool,
    out: &Out,
) -> Result<()> {
    let hub = engine.hub(id).await?;
    let mut head = hub.head.subscribe();
    let mut after = 0;
    loop {
        head.mark_unchanged();
        let events = engine.store.events(id, after, BATCH.0, BATCH.1).await?;
        if let Some(last) = events.last() {
            after = last.seq;
            let over = follow
                && events.iter().any(|event| event.kind.is(OwnKind::Exit))
                && is_final(engine, id).await?;
            let piece: Vec<u8> = events.iter().flat_map(|event| render(id, event, format)).collect();
            if !piece.is_empty() && !put(out, piece).await {
                return Ok(());
            }
            if over && events.len() < BATCH.0 as usize {
                return Ok(());
            }
            continue;
        }
        if !follow || is_final(engine, id).await? || head.changed().await.is_err() {
            return Ok(());
        }
    }
}

async fn is_final(engine: &Engine, id: SessionId) -> Result<bool> {
    Ok(engine.store.session(id).await?.is_none_or(|row| row.state.is_final()))
}

fn render(id: SessionId, event: &StoredEvent, format: ExportFormat) -> Vec<u8> {
    let mut line = match format {
        ExportFormat::Json => encode_stored(id, event).json.to_vec(),
        ExportFormat::Markdown => return markdown(event).into_bytes(),
        // Every stdout line, as it was: claude's own, and those that were not understood.
        ExportFormat::StreamJson | ExportFormat::Transcript => match (&event.kind, &event.raw) {
            (Kind::Own(OwnKind::Unknown), Some(raw)) => raw.to_vec(),
            (Kind::Claude(_) | Kind::Own(OwnKind::Unknown), _) => event.data.to_vec(),
            (Kind::Own(_), _) => return Vec::new(),
        },
    };
    line.push(b'\n');
    line
}

/// What a person would read: who said what, which tools ran.
fn markdown(event: &StoredEvent) -> String {
    match event.kind.as_str() {
        "input_accepted" => {
            let said: serde_json::Value = serde_json::from_slice(&event.data).unwrap_or_default();
            said["text"].as_str().map(|text| format!("## User\n\n{text}\n\n")).unwrap_or_default()
        }
        "assistant" => {
            let Some(message) = Message::parse(&event.data) else { return String::new() };
            let mut out = String::new();
            for block in message.value()["message"]["content"].as_array().into_iter().flatten() {
                if let Some(text) = block["text"].as_str() {
                    out += &format!("## Claude\n\n{text}\n\n");
                }
                if let Some(name) = block["name"].as_str() {
                    out += &format!("### {name}\n\n```json\n{}\n```\n\n", block["input"]);
                }
            }
            out
        }
        _ => String::new(),
    }
}

/// claude's own file, while there is one.
async fn transcript(engine: &Arc<Engine>, id: SessionId, out: &Out) -> Result<()> {
    let Some(row) = engine.store.session(id).await? else { return Ok(()) };
    let view = crate::shown::view(&row)?;
    let spec = engine.spec(id, &row.spec).await?;
    let place = Place::new(&engine.probe, id, &spec);
    let Some(claude) = view.claude_session_id else { return Ok(()) };
    let at = At::dir(place.project_dir, format!("{claude}.jsonl"));
    let mut offset = 0;
    loop {
        let (bytes, _) = engine.host.files().get(at.clone(), offset, PIECE_BYTES).await?;
        offset += bytes.len() as u64;
        if bytes.is_empty() || !put(out, bytes).await {
            return Ok(());
        }
    }
}

async fn raw(
    engine: &Arc<Engine>,
    id: SessionId,
    direction: Direction,
    follow: bool,
    secrets: &[String],
    out: &Out,
) -> Result<()> {
    let wanted = |stream: Stream| match direction {
        Direction::In => stream == Stream::In,
        Direction::Out => stream == Stream::Out,
        Direction::Both => matches!(stream, Stream::In | Stream::Out | Stream::Err),
    };
    let hub = engine.hub(id).await?;
    let mut head = hub.head.subscribe();
    let mut masks = [Mask::new(secrets), Mask::new(secrets), Mask::new(secrets)];
    let mut n = 1;
    let mut from = 1;
    loop {
        head.mark_unchanged();
        let runs = engine.store.runs(id).await?;
        let Some(run) = runs.iter().find(|run| run.n == n) else { return Ok(()) };
        let mut log = LogReader::open(engine.host.files(), &RunDir(run.dir.clone()), from).await?;
        while let Some(records) = log.next().await? {
            for record in records {
                from = record.seq + 1;
                if wanted(record.stream) {
                    let mask = &mut masks[usize::from(record.stream == Stream::In)
                        + 2 * usize::from(record.stream == Stream::Err)];
                    let bytes = mask.pass(&record.bytes);
                    if !bytes.is_empty() && !put(out, bytes).await {
                        return Ok(());
                    }
                }
            }
        }
        if run.state.is_final() {
            for mask in &mut masks {
                let rest = mask.rest();
                if !rest.is_empty() && !put(out, rest).await {
                    return Ok(());
                }
            }
            (n, from) = (n + 1, 1);
            continue;
        }
        if !follow || head.changed().await.is_err() {
            for mask in &mut masks {
                let rest = mask.rest();
                if !rest.is_empty() {
                    put(out, rest).await;
                }
            }
            return Ok(());
        }
    }
}

/// Replaces known secrets in a byte stream, also where a secret is split between two pieces.
struct Mask<'a> {
    secrets: &'a [String],
    held: Vec<u8>,
    longest: usize,
}

impl<'a> Mask<'a> {
    fn new(secrets: &'a [String]) -> Self {
        Self { secrets, held: Vec::new(), longest: secrets.iter().map(String::len).max().unwrap_or(0) }
    }

    fn pass(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(bytes);
        self.mask();
        let keep = self.longest.saturating_sub(1).min(self.held.len());
        let rest = self.held.split_off(self.held.len() - keep);
        std::mem::replace(&mut self.held, rest)
    }

    fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }

    fn mask(&mut self) {
        for secret in self.secrets {
            while let Some(at) = memchr::memmem::find(&self.held, secret.as_bytes()) {
                self.held.splice(at..at + secret.len(), redact::MASK.bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_masked_wherever_it_is_split() {
        let secrets = ["s3cret-value".to_owned()];
        let text = b"a s3cret-value b";
        for cut in 0..text.len() {
            let mut mask = Mask::new(&secrets);
            let mut out = mask.pass(&text[..cut]);
            out.extend(mask.pass(&text[cut..]));
            out.extend(mask.rest());
            assert_eq!(out, b"a *** b", "cut at {cut}");
        }
    }
}

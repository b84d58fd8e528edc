//! From records to folded state: claude's lines through the decoder, the shim's notes by themselves, and what of it
//! subscribers see at once.

use super::actor::Actor;
use super::finish::Ending;
use super::view::Clock;
use crate::host::Record;
use castra_claude::line::{RecordIn, StreamIn};
use castra_proto::Timestamp;
use castra_proto::shim::{Note, Reason, Refused, Stream};
use tracing::warn;

impl Actor<'_> {
    /// Takes one record; the number of its bytes.
    pub(crate) fn record(&mut self, record: Record) -> usize {
        let bytes = record.bytes.len();
        let replayed = record.seq <= self.run.cursor;
        self.deadlines.heard();
        if self.tty.is_some() {
            self.tty_record(&record, replayed);
        }
        match record.stream {
            Stream::Out | Stream::Err => {
                let stream = if record.stream == Stream::Out { StreamIn::Out } else { StreamIn::Err };
                let mut lines = Vec::new();
                let (seq, at, offset) = (record.seq, record.at, record.offset);
                self.decoder.step(RecordIn { seq, at, stream, offset, bytes: record.bytes }, &mut lines);
                // Up to the cursor, only what is still open is decoded again.
                if !replayed {
                    for line in lines {
                        self.view.apply(line, &self.given, &mut self.added);
                    }
                }
            }
            Stream::Shim if !replayed => self.note(&record),
            Stream::In if !replayed => self.input_bytes(&record),
            Stream::File(_) if !replayed => self.log_bytes(&record),
            _ => {}
        }
        self.run.decoded = self.run.decoded.max(record.seq);
        self.replaying = record.seq < self.run.cursor;
        bytes
    }

    fn note(&mut self, record: &Record) {
        let note = match Note::decode(&record.bytes) {
            Ok(note) => note,
            Err(error) => {
                // A newer shim's note: what this version must know is frozen.
                warn!(session = %self.id, %error, "skipped a note of the shim's");
                return;
            }
        };
        match note {
            Note::Started { claude, shim, wall_ns, boot_ns, .. } => {
                self.view.clock = Some(Clock { wall_ns, boot_ns });
                self.view.pid = Some(claude.pid);
                self.view.shim_pid = Some(shim.pid);
                self.added.changed = true;
            }
            Note::Input { input_id, len, .. } => {
                self.input_begins(input_id, len);
                self.input_journalled(input_id);
            }
            Note::SpawnFailed { message, .. } => self.ending = Some(Ending::spawn_failed(message)),
            Note::Exit { code, signal, tail_lost, tree, cause } => {
                let at = self.view.clock.map_or_else(|| self.at(), |clock| clock.at(record.at));
                self.ending = Some(Ending::exit(code, signal, tail_lost, tree, cause, at));
            }
            Note::Degraded { since, .. } => self.degraded(Some(since)),
            Note::Recovered { .. } => self.degraded(None),
            Note::StdinClosed { unsent } => {
                warn!(session = %self.id, unsent, "claude has closed its stdin");
            }
            Note::SyncFailed { segment, errno } => {
                warn!(session = %self.id, segment, errno, "a segment could not be synced and was ended");
            }
            Note::MemoryLimit { bytes, limit } => self.limit_reached("memory_mb", &[bytes, limit]),
            Note::File { stream, rule, path, at, .. } => {
                self.log_bound(record.at, stream, rule, &path, at);
            }
            Note::Signal { .. } | Note::Resized { .. } | Note::FileCut { .. } => {}
        }
    }

    /// What claude is writing, for subscribers. Not what it was writing at an earlier time: blocks that events have
    /// closed would come up again.
    pub(crate) fn show_open(&self) {
        if !self.replaying {
            self.hub.show_open(self.decoder.open());
        }
    }

    /// Takes away what is not open any more.
    pub(crate) fn close_open(&self) {
        if !self.replaying {
            self.hub.close_open(self.decoder.open());
        }
    }

    /// The session is driven.
    pub(crate) fn well(&mut self) {
        if std::mem::take(&mut self.troubled) {
            self.engine.troubles.over(self.id);
        }
    }

    /// The run's disk is full, or is not any more.
    pub(crate) fn degraded(&mut self, since: Option<u64>) {
        let since = since.map(|since| self.view.clock.map_or(Timestamp::default(), |clock| clock.at(since)));
        if self.view.flags.degraded.is_some() == since.is_some() {
            return;
        }
        self.view.flags.degraded = since;
        let event = self.view.event(
            self.at(),
            castra_proto::OwnKind::State,
            &serde_json::json!({"flag": "degraded", "since": since}),
        );
        self.added.events.push(event);
        self.added.changed = true;
    }

    /// A write was not carried out: it is tried again, unless claude is gone.
    pub(crate) fn refused(&mut self, refused: Refused) {
        let Some(id) = refused.input_id else {
            warn!(session = %self.id, reason = ?refused.reason, "the shim refused");
            return;
        };
        match refused.reason {
            Reason::TooLarge | Reason::Unsupported | Reason::BadFrame => {
                self.undeliverable(id, refused.reason)
            }
            _ => self.write_later(id),
        }
    }
}

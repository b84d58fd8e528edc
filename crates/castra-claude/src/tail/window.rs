//! The stretch of a conversation since nothing was open last: which records wait, which turn runs, what was said of it.
//! Refuses to remember longer than that.

use super::entry::{Entry, Role};
use super::prompt::{Prompt, Source};
use super::turn::{Call, End, Turn, state_event};
use super::{PATIENCE, SETTLE, Told};
use crate::fact::{Decoded, SessionState};
use crate::field::{items, number, string, text, uuid};
use crate::terminal::signal::{State, Status};
use std::collections::{BTreeSet, HashSet};
use uuid::Uuid;

/// Records that may wait for a parent; with more of them they are told in the order of their lines.
const WAITING: usize = 1_000;
/// The same, in bytes.
const WAITING_BYTES: usize = 64 << 20;

/// Empty is what it is whenever nothing is open.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// The oldest record of the log that made it what it is.
    pub(super) since: Option<u64>,
    pub(super) calls: Vec<Call>,
    pub(super) waiting_for: Option<String>,
    /// Records that were told or passed over.
    known: HashSet<Uuid>,
    /// Subagents whose first record is known, so that their others may wait for it.
    agents: BTreeSet<String>,
    /// In the order of the log.
    waiting: Vec<Entry>,
    turn: Option<Turn>,
    leaf: Option<Uuid>,
    /// claude's own word, from its state file.
    status: Option<Status>,
    /// claude said that it is idle, and what ran before has not come to its end in the transcript.
    idle_at: Option<u64>,
    /// Of the newest transcript record.
    written_at: u64,
    /// The newest state that was told; none: idle.
    said: Option<SessionState>,
    /// A turn was announced that has had no result.
    announced: bool,
    /// What was announced is a command, or the shell: it may have no turn.
    commanded: bool,
    session: Option<Uuid>,
}

impl Window {
    pub(super) fn began(&mut self, seq: u64) {
        self.since = Some(self.since.map_or(seq, |since| since.min(seq)));
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.turn.is_none()
            && self.waiting.is_empty()
            && self.idle_at.is_none()
            && !self.announced
            && !matches!(self.status, Some(Status::Busy | Status::Waiting))
            && matches!(self.said, None | Some(SessionState::Idle))
    }

    /// A record that is not told, though others may hang on it.
    pub(super) fn knows(&mut self, entry: &Entry) {
        self.known.extend(entry.uuid);
    }

    /// Takes a record of a transcript: tells it, or keeps it until its parent is told.
    pub(super) fn place(&mut self, entry: Entry, when: (u64, u64), out: &mut Vec<Told>) {
        self.written_at = when.1;
        if entry.role == Role::Leaf {
            self.leaf = uuid(&entry.value, "leafUuid").or(self.leaf);
            return self.check_leaf(when, out);
        }
        if self.is_ready(&entry) {
            self.tell(entry, when, out);
            return self.drain(when, out);
        }
        let begins = entry.role == Role::Prompt && self.turn.is_none();
        let parent = entry.parent;
        self.waiting.push(entry);
        if begins && self.waiting.iter().any(|other| other.uuid == parent) {
            // What a resumed conversation adds hangs on records of the run before, and this prompt on that.
            return self.release(when, out);
        }
        let bytes: usize = self.waiting.iter().map(|entry| entry.bytes.len()).sum();
        if self.waiting.len() > WAITING || bytes > WAITING_BYTES {
            self.release(when, out);
        }
    }

    fn is_ready(&self, entry: &Entry) -> bool {
        let Some(parent) = entry.parent.filter(|_| entry.uuid.is_some()) else { return !self.holds(entry) };
        if self.known.contains(&parent) {
            return !self.holds(entry);
        }
        // Its parent may be as old as the conversation, unless a turn runs that it could belong to. A subagent's is
        // looked for in the rest of the batch.
        entry.agent.is_none()
            && !entry.needs_parent()
            && (self.turn.is_none() || self.idle_at.is_some())
            && !self.waiting.iter().any(|other| other.uuid == Some(parent))
    }

    /// A subagent's records may be on disk before the prompt that it works for.
    fn holds(&self, entry: &Entry) -> bool {
        entry.agent.is_some() && self.turn.is_none() && self.status != Some(Status::Busy)
    }

    /// Tells what has its parent by now.
    pub(super) fn drain(&mut self, when: (u64, u64), out: &mut Vec<Told>) {
        let ready = |window: &Self, entry: &Entry| {
            entry.parent.is_none_or(|parent| window.known.contains(&parent)) && !window.holds(entry)
        };
        while let Some(next) = self.waiting.iter().position(|entry| ready(self, entry)) {
            let entry = self.waiting.remove(next);
            self.tell(entry, when, out);
        }
    }

    /// A batch is over: a subagent whose first record it did not hold began long ago.
    pub(super) fn end_of_batch(&mut self, when: (u64, u64), out: &mut Vec<Told>) {
        let old = |window: &Self, entry: &Entry| {
            let agent = entry.agent.as_ref().is_some_and(|agent| !window.agents.contains(agent));
            agent && !window.holds(entry) && !window.waiting.iter().any(|other| other.uuid == entry.parent)
        };
        while let Some(next) = self.waiting.iter().position(|entry| old(self, entry)) {
            let entry = self.waiting.remove(next);
            self.tell(entry, when, out);
            self.drain(when, out);
        }
    }

    /// Tells all that waits: parents first where they are there, else in the order of the log.
    fn release(&mut self, when: (u64, u64), out: &mut Vec<Told>) {
        while !self.waiting.is_empty() {
            let waiting: HashSet<Uuid> = self.waiting.iter().filter_map(|entry| entry.uuid).collect();
            let first = |entry: &Entry| entry.parent.is_none_or(|parent| !waiting.contains(&parent));
            // None: they hang on each other in a circle.
            let next = self.waiting.iter().position(first).unwrap_or(0);
            let entry = self.waiting.remove(next);
            self.tell(entry, when, out);
            self.drain(when, out);
        }
    }

    fn tell(&mut self, entry: Entry, when: (u64, u64), out: &mut Vec<Told>) {
        self.known.extend(entry.uuid);
        self.note_calls(&entry);
        if let Some(agent) = &entry.agent {
            self.agents.insert(agent.clone());
        } else {
            self.session = entry.session_id().or(self.session);
            self.before(&entry, when, out);
        }
        let (role, agent, uuid) = (entry.role, entry.agent.is_some(), entry.uuid);
        let duration_ms = number(&entry.value, "durationMs");
        if role != Role::Link {
            let prompt = if agent { None } else { Prompt::of(&entry.value) };
            self.commanded |= prompt
                .as_ref()
                .is_some_and(|prompt| matches!(prompt.source, Source::Command | Source::Shell));
            out.push(Told { line: entry.into_decoded(when.0), prompt });
        }
        match role {
            _ if agent => {}
            Role::TurnEnd => self.close(End::Over { duration_ms }, when, out),
            Role::Interrupt => self.close(End::Interrupted, when, out),
            Role::ApiError if uuid.is_some() && uuid == self.leaf => self.check_leaf(when, out),
            _ => {}
        }
    }

    /// What a record of the main conversation means to the turn, before it is told.
    fn before(&mut self, entry: &Entry, when: (u64, u64), out: &mut Vec<Told>) {
        let begins = match entry.role {
            Role::Prompt => {
                // A prompt never joins a turn: the one before it ended, whatever it left behind.
                self.close(End::Unmarked, when, out);
                true
            }
            // A command, or the shell, may have the model speak without a prompt.
            Role::Assistant | Role::ApiError => self.turn.is_none(),
            _ => false,
        };
        if begins {
            if !std::mem::replace(&mut self.announced, true) {
                self.say(SessionState::Running, when, out);
            }
            self.turn = Some(Turn::begin(&entry.value, entry.uuid, entry.session_id(), entry.at));
        }
        if let (Role::Assistant | Role::ApiError, Some(turn)) = (entry.role, &mut self.turn) {
            turn.assistant(&entry.value, entry.uuid, entry.role == Role::ApiError);
        }
    }

    fn note_calls(&mut self, entry: &Entry) {
        for block in items(&entry.value["message"], "content") {
            match text(block, "type") {
                Some("tool_use") => self.calls.push(Call {
                    id: string(block, "id").unwrap_or_default(),
                    tool: string(block, "name").unwrap_or_default(),
                    input: block["input"].clone(),
                    agent: entry.agent.clone(),
                }),
                Some("tool_result") => {
                    let id = text(block, "tool_use_id").unwrap_or_default();
                    self.calls.retain(|call| call.id != id);
                }
                _ => {}
            }
        }
    }

    fn check_leaf(&mut self, when: (u64, u64), out: &mut Vec<Told>) {
        let (Some(leaf), Some(turn)) = (self.leaf, &self.turn) else { return };
        if turn.failed_at(leaf) {
            self.close(End::Over { duration_ms: None }, when, out);
        }
    }

    fn close(&mut self, end: End, when: (u64, u64), out: &mut Vec<Told>) {
        let Some(turn) = self.turn.take() else { return };
        out.push(told(turn.result(end, when)));
        self.calls.retain(|call| call.agent.is_some());
        self.announced = false;
        self.commanded = false;
        if matches!(self.status, None | Some(Status::Idle)) {
            self.idle_at = None;
            self.say(SessionState::Idle, when, out);
        }
    }

    /// Takes claude's own word.
    pub(super) fn state(&mut self, when: (u64, u64), state: &State, out: &mut Vec<Told>) {
        let Some(status) = state.status else { return };
        self.began(when.0);
        self.session = state.session_id.or(self.session);
        self.status = Some(status);
        self.waiting_for = state.waiting_for.clone().filter(|_| status == Status::Waiting);
        if status != Status::Idle {
            self.idle_at = None;
        }
        match status {
            Status::Busy => {
                if self.said != Some(SessionState::Running) {
                    // Back from a dialog it is the same turn.
                    self.announced |= self.said != Some(SessionState::RequiresAction);
                    self.say(SessionState::Running, when, out);
                }
            }
            Status::Waiting => {
                if !self.announced && !state.is_own_dialog() {
                    self.announced = true;
                    self.say(SessionState::Running, when, out);
                }
                self.say(SessionState::RequiresAction, when, out);
            }
            // Its records come later than its state; without any there was no turn.
            Status::Idle if self.announced || !self.waiting.is_empty() => self.idle_at = Some(when.1),
            Status::Idle => self.say(SessionState::Idle, when, out),
        }
    }

    pub(super) fn due(&self) -> Option<u64> {
        let waits = self.turn.is_none() && self.status != Some(Status::Busy);
        let (since, long) = match self.idle_at {
            Some(idle_at) if self.is_unanswered() => (idle_at, PATIENCE),
            Some(idle_at) => (idle_at, SETTLE),
            None => (self.waiting.first().filter(|_| waits)?.at, SETTLE),
        };
        let since = if self.idle_at.is_some() { since.max(self.written_at) } else { since };
        Some(since.saturating_add(long))
    }

    /// A turn was announced, and what was said in it is not on disk.
    fn is_unanswered(&self) -> bool {
        match &self.turn {
            Some(turn) => !turn.is_answered(),
            None => self.announced && self.waiting.is_empty() && !self.commanded,
        }
    }

    /// A record of the log, of whatever stream: its time is the only one there is.
    pub(super) fn tick(&mut self, when: (u64, u64), out: &mut Vec<Told>) {
        if self.due().is_some_and(|due| due <= when.1) {
            self.give_up(when, out);
        }
    }

    pub(super) fn taken_back(&mut self, when: (u64, u64), out: &mut Vec<Told>) {
        if self.idle_at.is_some() && self.is_unanswered() {
            self.give_up(when, out);
        }
    }

    fn give_up(&mut self, when: (u64, u64), out: &mut Vec<Told>) {
        self.release(when, out);
        self.idle_at = None;
        self.close(End::Unmarked, when, out);
        self.announced = false;
        self.commanded = false;
        if matches!(self.status, None | Some(Status::Idle)) {
            self.say(SessionState::Idle, when, out);
        }
    }

    pub(super) fn finish(&mut self, when: (u64, u64), out: &mut Vec<Told>) {
        self.release(when, out);
        self.status = None;
        self.close(End::Unmarked, when, out);
        *self = Self::default();
    }

    fn say(&mut self, state: SessionState, when: (u64, u64), out: &mut Vec<Told>) {
        if self.said.unwrap_or(SessionState::Idle) == state && state != SessionState::Running {
            return;
        }
        self.said = Some(state);
        let name = match state {
            SessionState::Idle => "idle",
            SessionState::Running => "running",
            SessionState::RequiresAction => "requires_action",
        };
        out.push(told(state_event(name, self.session, when)));
    }
}

fn told(line: Decoded) -> Told {
    Told { line, prompt: None }
}

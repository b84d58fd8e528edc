//! A message as a sequence of steps: send, wait, stall, break off. Pure, so that pacing and mishaps are
//! tested without a clock; `body` takes the steps. Refuses to look ahead: texts are cut as they are sent.

use crate::message::{Block, Message};
use crate::reply::{Incident, Mishap, Pace};
use crate::wire::Form;
use std::collections::VecDeque;
use std::time::Duration;

/// Without a pace a text comes in about this many deltas, none shorter than `SHORTEST` characters: a huge
/// text would otherwise cost the CLI a minute (it reads 8,000 deltas a second).
const DELTAS: u64 = 400;
const SHORTEST: u64 = 24;
/// And none longer than this, so that a chunk is a small allocation.
const LONGEST: u64 = 64 * 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Send(String),
    Wait(Duration),
    /// Say nothing more, keep the connection.
    Forever,
    /// Close the connection without an end.
    Cut,
}

#[derive(Debug, Clone, Copy)]
enum At {
    Start,
    Open(usize),
    /// In a block, `from` bytes are sent; `paced` once its delay was waited.
    Inside {
        block: usize,
        from: u64,
        paced: bool,
    },
    Close(usize),
    Finish,
    Done,
}

#[derive(Debug)]
pub(crate) struct Frames {
    message: Message,
    form: Form,
    pace: Option<Pace>,
    incidents: VecDeque<Incident>,
    /// Characters of content sent so far.
    sent: u64,
    at: At,
    input: String,
}

impl Frames {
    /// `pace` holds for streams only: an object is not read before it ends.
    pub(crate) fn new(message: Message, form: Form, pace: Option<Pace>, incidents: Vec<Incident>) -> Self {
        let pace = pace.filter(|_| form == Form::Events);
        Self {
            message,
            form,
            pace,
            incidents: incidents.into(),
            sent: 0,
            at: At::Start,
            input: String::new(),
        }
    }

    fn take_incident(&mut self, due: u64) -> Option<Step> {
        let incident = self.incidents.pop_front_if(|incident| incident.after <= due)?;
        Some(match incident.what {
            Mishap::Stall(Some(length)) => Step::Wait(length),
            Mishap::Stall(None) => {
                self.at = At::Done;
                Step::Forever
            }
            Mishap::Cut => {
                self.at = At::Done;
                Step::Cut
            }
            Mishap::Error(error) => {
                self.at = At::Done;
                match self.form {
                    Form::Events => Step::Send(self.form.error(&error)),
                    Form::Object => Step::Cut,
                }
            }
        })
    }

    fn inside(&mut self, block: usize, from: u64, paced: bool) -> Option<Step> {
        let Some(content) = self.message.blocks.get(block) else {
            self.at = At::Finish;
            return self.next();
        };
        let room = match self.incidents.front() {
            Some(incident) => usize::try_from(incident.after - self.sent).unwrap_or(usize::MAX),
            None => usize::MAX,
        };
        let total = match content {
            Block::Text(text) | Block::Thinking { text, .. } => text.bytes(),
            Block::ToolUse { .. } => self.input.len() as u64,
        };
        let size = self.pace.map_or_else(
            || usize::try_from((total / DELTAS).clamp(SHORTEST, LONGEST)).unwrap_or(usize::MAX),
            |pace| pace.chars,
        );
        let chunk = match content {
            Block::Text(text) | Block::Thinking { text, .. } => text.chunk(from, size.min(room)),
            Block::ToolUse { .. } => {
                let from = usize::try_from(from).unwrap_or(usize::MAX);
                self.input.get(from..).unwrap_or_default().chars().take(size.min(room)).collect()
            }
        };
        if chunk.is_empty() {
            self.at = At::Close(block);
            return self.next();
        }
        if let (Some(pace), false) = (self.pace, paced)
            && !pace.delay.is_zero()
        {
            self.at = At::Inside { block, from, paced: true };
            return Some(Step::Wait(pace.delay));
        }
        self.sent += chunk.chars().count() as u64;
        self.at = At::Inside { block, from: from + chunk.len() as u64, paced: false };
        Some(Step::Send(self.form.piece(block, content, &chunk)))
    }
}

impl Iterator for Frames {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        match self.at {
            At::Start => {
                self.at = At::Open(0);
                Some(Step::Send(self.form.start(&self.message)))
            }
            At::Open(block) => {
                let Some(content) = self.message.blocks.get(block) else {
                    self.at = At::Finish;
                    return self.next();
                };
                if let Block::ToolUse { input, .. } = content {
                    self.input = input.to_string();
                }
                self.at = At::Inside { block, from: 0, paced: false };
                Some(Step::Send(self.form.open(block, content)))
            }
            At::Inside { block, from, paced } => match self.take_incident(self.sent) {
                Some(step) => Some(step),
                None => self.inside(block, from, paced),
            },
            At::Close(block) => {
                self.at = At::Open(block + 1);
                self.message.blocks.get(block).map(|content| Step::Send(self.form.close(block, content)))
            }
            At::Finish => {
                // What waits for more characters than there are happens now, or it would never.
                if let Some(step) = self.take_incident(u64::MAX) {
                    return Some(step);
                }
                self.at = At::Done;
                Some(Step::Send(self.form.finish(&self.message)))
            }
            At::Done => None,
        }
    }
}

#[cfg(test)]
#[path = "frames_tests.rs"]
mod tests;

//! Hooks: what is called at which point of a task's life, and what its answer means for the task. Refuses to act on an
//! answer that is not on disk: whatever is killed in between, the task goes on with one and the same answer.
//!
//! Of a point that the task waits for, the answer is committed by itself before what it is about is folded
//! ([`settle`]); then the driver looks at the task anew, and finds it. So a hook may change the task while it runs, and
//! one that was cut off is called again under the same id. The others are told of what has happened ([`courier`]).

mod callback;
mod command;
mod context;
mod courier;
mod desk;
mod fire;
mod point;
mod sign;
mod spec;
mod webhook;

pub use callback::{HookError, HookResult, Hooks};
pub use context::HookCtx;
pub(crate) use courier::keep;
pub(crate) use desk::Desk;
pub use desk::Registered;
pub(super) use point::{Due, after, before, due, take_settled};
pub(crate) use spec::{check, check_scope, enabled, restore, split, told};
pub use webhook::{Answered, Outgoing, Post, PostError};

use super::handover::Taken;
use super::held::Held;
use crate::engine::Engine;
use crate::session::launch::Place;
use crate::{Error, Result};
use castra_proto::shim::relay::{At, EntryKind};
use castra_proto::{SessionId, TaskId};
use castra_store::TaskError;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What is told to the agent of an answer, bytes.
const MAX_ANSWER: usize = 16 << 10;
/// Tries at a change that others were faster with.
const TRIES: usize = 50;

/// What a hook says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Accepted,
    /// For the agent: what is to be changed, or what it has asked.
    Text(String),
}

/// The error is for people.
pub(super) type Said = std::result::Result<Answer, String>;

/// Nothing and `ok` are consent; anything else is for the agent.
pub(super) fn answer(text: &str) -> Answer {
    let text = text.trim();
    if text.is_empty() || text.eq_ignore_ascii_case("ok") {
        return Answer::Accepted;
    }
    let mut end = text.len().min(MAX_ANSWER);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let cut = if end < text.len() { " […]" } else { "" };
    Answer::Text(format!("{}{cut}", &text[..end]))
}

/// What all hooks of a point have come to. On disk until what it is about is folded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settled {
    /// Of the firing.
    pub id: Uuid,
    /// For the agent.
    pub text: Option<String>,
    /// One of them has failed.
    pub trouble: bool,
    /// The task fails by it, and why.
    pub fail: Option<String>,
    /// The file that it is about, as it was.
    pub taken: Option<Taken>,
}

/// Changes a task by what `change` makes of it, which says whether it did; done again when somebody else was faster. A
/// task that is not there any more is left alone.
pub(super) async fn change(engine: &Engine, id: TaskId, change: impl Fn(&mut Held) -> bool) -> Result<()> {
    for _ in 0..TRIES {
        let Some(mut task) = Held::load(engine, id).await? else { return Ok(()) };
        if !change(&mut task) {
            return Ok(());
        }
        match task.commit(engine).await {
            Err(Error::Task(TaskError::Moved(_))) => {}
            done => return done,
        }
    }
    Err(Error::new(castra_proto::ErrorCode::Conflict, "the task was changed by others, again and again"))
}

/// The folder that the agent works in, on the host. None: it is not there, or no longer.
pub(super) async fn folder(
    engine: &Engine,
    task: &Held,
    session: Option<SessionId>,
) -> Result<Option<String>> {
    let Some(session) = session else { return Ok(None) };
    if let Some(workdir) = &task.spec.session.workdir {
        // Another folder, in its place, is not the one that was allowed.
        engine.still_there(std::iter::once(workdir)).await?;
    }
    let work = Place::new(&engine.probe, session, &task.spec.session).work;
    let at = match &task.spec.session.workdir {
        Some(workdir) => At::dir("/", workdir.trim_matches('/')),
        None => At::home(format!("sessions/{session}/work")),
    };
    let entry = engine.host.files().stat(at).await?;
    Ok(entry.filter(|entry| entry.kind == EntryKind::Dir).map(|_| work))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_and_ok_are_consent() {
        for text in ["", " \n", "ok", "OK\n", " Ok "] {
            assert_eq!(answer(text), Answer::Accepted, "{text:?}");
        }
        for (text, said) in [("okay", "okay"), ("\nshorter\nplease\n", "shorter\nplease"), ("no", "no")] {
            assert_eq!(answer(text), Answer::Text(said.into()), "{text:?}");
        }
        let Answer::Text(long) = answer(&"ä".repeat(MAX_ANSWER)) else { panic!("it is text") };
        assert_eq!(long.len(), MAX_ANSWER + " […]".len());
    }
}

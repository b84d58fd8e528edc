//! The handle that Rust programs hold: one session, its verbs as async methods. Owns no state of a session, and
//! refuses to be its lifetime: handles are dropped freely, sessions end when they are told to.
//!
//! ```
//! # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/demo/setup.in"));
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use castra_supervisor::{Config, Supervisor};
//!
//! let home = tempfile::tempdir()?;
//! let mut config = Config::new(home.path());
//! config.inherited = std::env::vars().collect(); // Sessions get an allow-list of these.
//! # demo_model(&mut config).await?;
//! let supervisor = Supervisor::open(config).await?;
//!
//! let spec = castra_proto::SessionSpec { demo: true, ..Default::default() };
//! let session = supervisor.start(spec).await?;
//! let answer = session.ask("remember the number 7").await?;
//! assert_eq!(answer.text, "I will remember: the number 7");
//!
//! session.close().await?;
//! supervisor.close().await;
//! # Ok(()) }
//! ```

mod events;
mod permissions;
mod task;
pub mod team;

pub use events::{Events, Messages, Spoken};
pub use permissions::Approver;
pub use task::{Task, TaskEvents};
pub use team::Team;

use crate::supervisor::{Caller, Supervisor};
use crate::{Error, Result};
use castra_proto::api::{Fork, MessageAccepted, MessageState, Resume, SendMessage, TurnResult};
use castra_proto::permission::{PermissionAnswer, PermissionRequest};
use castra_proto::{ErrorCode, MessageId, SessionId, SessionSpec};
use std::time::Duration;

/// One wait of [`Session::ask`]; it waits as often as it must.
const WAIT: Duration = Duration::from_secs(3600);

/// One session, driven from the program that embeds the supervisor.
///
/// A cheap handle: clones are the same session. Dropping it ends nothing, as nothing that goes away ends a session;
/// [`Session::close`] does. Whoever opens the same data folder next finds it by id or name ([`Supervisor::session`]).
///
/// Every decision that it makes is recorded as made by [`Caller::embedded`].
#[derive(Clone)]
pub struct Session {
    supervisor: Supervisor,
    id: SessionId,
    caller: Caller,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Supervisor {
    /// A new session, on disk when this returns. claude starts meanwhile: messages may be sent at once.
    ///
    /// Errors: `invalid_request` and `conflict` for what the spec asks, `cli_not_found`, `sandbox_unavailable`.
    pub async fn start(&self, spec: SessionSpec) -> Result<Session> {
        let caller = Caller::embedded();
        let created = self.create(spec, None, &caller).await?;
        Ok(Session { supervisor: self.clone(), id: created.id, caller })
    }

    /// A handle to a session that exists: by id, by a unique prefix of it, or by name.
    ///
    /// Errors: `session_not_found`; `conflict` where several begin like this.
    pub async fn session(&self, reference: &str) -> Result<Session> {
        let id = self.resolve(reference).await?;
        Ok(Session { supervisor: self.clone(), id, caller: Caller::embedded() })
    }
}

impl Session {
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// What it is now: state, what waits, cost, how its last run ended.
    ///
    /// Errors: `session_not_found` when it was removed.
    pub async fn show(&self) -> Result<castra_proto::Session> {
        self.supervisor.show(self.id).await
    }

    /// Says something. On disk when this returns, and delivered once, after whatever was sent before it.
    ///
    /// Errors: `session_ended` and `session_lost` (resume it first), `overloaded`, `session_busy` with
    /// `if_busy: reject`.
    pub async fn send(&self, message: impl Into<SendMessage>) -> Result<MessageAccepted> {
        self.supervisor.send(self.id, message.into(), None, &self.caller).await
    }

    /// Says something and waits, without a limit, for the result of the turn in which it was delivered.
    ///
    /// An `Ok` is a turn that truly succeeded, so that its text can be used without another look. A turn that failed
    /// or was interrupted is [`Error::Turn`] with the whole result. Dropping the future takes nothing back.
    ///
    /// Errors: those of [`Session::send`]; [`Error::Turn`]; `cli_exited` when the run was over before the answer;
    /// `conflict` when somebody withdrew the message, or interrupted it before it had any result.
    pub async fn ask(&self, message: impl Into<SendMessage>) -> Result<TurnResult> {
        let accepted = self.send(message).await?;
        self.answer_to(accepted.message_id).await
    }

    /// What [`Session::ask`] waits for, of a message that was sent before.
    ///
    /// Errors: as there, and `not_found` for a message of another session.
    pub async fn answer_to(&self, message: MessageId) -> Result<TurnResult> {
        let mut closing = self.supervisor.engine.closing.subscribe();
        let found = loop {
            let found = tokio::select! {
                found = self.supervisor.wait(self.id, message, WAIT) => found?,
                _ = closing.wait_for(|closing| *closing) => return Err(closed()),
            };
            let over = || async { Ok::<_, Error>(self.show().await?.state.is_final()) };
            if settled(found.state) || over().await? {
                break found;
            }
        };
        match (found.state, found.result) {
            (_, Some(result)) if result.ok => Ok(result),
            (_, Some(result)) => Err(Error::Turn(Box::new(result))),
            (MessageState::Withdrawn, None) => {
                Err(Error::new(ErrorCode::Conflict, "the message was withdrawn"))
            }
            (state, None) => Err(self.unanswered(state).await?),
        }
    }

    async fn unanswered(&self, state: MessageState) -> Result<Error> {
        let shown = self.show().await?;
        let exit = shown.exit.filter(|_| shown.state.is_final());
        Ok(match exit {
            Some(exit) => {
                let why = exit.detail.map(|detail| format!(": {detail}")).unwrap_or_default();
                let hint = match state {
                    MessageState::Queued | MessageState::Written => {
                        "`resume` continues, and delivers the message"
                    }
                    _ => "`resume` continues the conversation",
                };
                Error::with_hint(
                    ErrorCode::CliExited,
                    format!("the run was over before the answer{why}"),
                    hint,
                )
            }
            None => Error::new(ErrorCode::Conflict, "the turn was interrupted before it had a result"),
        })
    }

    /// Every event with a `seq` above `after` (0: from the first), history and live on one path, without a gap.
    ///
    /// Errors: `session_not_found`.
    pub async fn events(&self, after: u64) -> Result<Events> {
        let closing = self.supervisor.engine.closing.subscribe();
        Ok(Events::new(self.supervisor.subscribe(self.id, after).await?, closing))
    }

    /// What claude itself said, above `after`: the events without castra's own.
    ///
    /// Errors: `session_not_found`.
    pub async fn messages(&self, after: u64) -> Result<Messages> {
        Ok(Messages::new(self.events(after).await?))
    }

    /// What claude waits for now.
    pub async fn permissions(&self) -> Result<Vec<PermissionRequest>> {
        self.supervisor.permissions(self.id).await
    }

    /// Decides a permission request. On disk when this returns.
    ///
    /// Errors: `permission_gone` when it was decided or withdrawn, `input_changed` for another `input_hash`.
    pub async fn answer(&self, request_id: &str, answer: PermissionAnswer) -> Result<PermissionRequest> {
        self.supervisor.answer(self.id, request_id, answer, &self.caller).await
    }

    /// Ends the turn that runs; the session goes on. Returns when claude has taken it.
    ///
    /// Errors: `session_ended`, `session_lost`; `conflict` when the run was over before claude took it.
    pub async fn interrupt(&self) -> Result<castra_proto::Session> {
        self.supervisor.interrupt(self.id, &self.caller).await
    }

    /// Stops claude and waits until its run is over. The conversation stays, and may be resumed; closing what is
    /// closed is fine. Messages that were not delivered wait for the next run.
    pub async fn close(&self) -> Result<castra_proto::Session> {
        self.supervisor.stop(self.id, &self.caller).await
    }

    /// Continues it in a new run, with all that was said.
    ///
    /// Errors: `conflict` when it is alive, `budget_exceeded`.
    pub async fn resume(&self) -> Result<castra_proto::Session> {
        self.supervisor.resume(self.id, Resume::default(), &self.caller).await
    }

    /// A new session with a copy of this conversation and of `work/`; this one is not changed.
    ///
    /// Errors: `conflict` before the first result, or for a name in use.
    pub async fn fork(&self, name: Option<&str>) -> Result<Session> {
        let fork = Fork { name: name.map(str::to_owned) };
        let child = self.supervisor.fork(self.id, fork, &self.caller).await?;
        Ok(Session { id: child.id, ..self.clone() })
    }
}

const fn settled(state: MessageState) -> bool {
    matches!(state, MessageState::Answered | MessageState::Interrupted | MessageState::Withdrawn)
}

fn closed() -> Error {
    Error::with_hint(
        ErrorCode::SessionStale,
        "the supervisor was closed; the session lives on",
        "open the data folder again and take a new handle by id",
    )
}

//! What one request says to the agents of a team: sessions are begun or resumed where they must be, and each message
//! waits for its own turn. Refuses to take a result for another message's.

use super::held::Held;
use super::hub::Gate;
use super::spec::conversation;
use crate::engine::Engine;
use crate::supervisor::start::Plan;
use crate::supervisor::{Caller, Supervisor};
use crate::{Error, Result, shown};
use castra_proto::api::{MessageState, Scope, SendMessage};
use castra_proto::session::ExitCause;
use castra_proto::team::{Answer, AnswerState};
use castra_proto::{ErrorCode, MessageId, Problem, SessionId, TeamId};
use castra_store::{CommitError, TeamError};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Tries at what others were faster with, and at a session that ends as it is spoken to.
const TRIES: usize = 20;
/// Agents that are started or spoken to at once, by one request. All of them work at once.
const AT_ONCE: usize = 8;

/// Whoever begins the sessions of a team: what they may was decided when the team was made.
pub(crate) fn caller(team: TeamId) -> Caller {
    Caller { by: format!("team:{team}"), scope: Scope::Admin }
}

/// One request to a team.
pub(crate) struct Talk<'a> {
    pub supervisor: &'a Supervisor,
    pub team: TeamId,
    pub caller: &'a Caller,
    /// When it began, of `TeamHub::begin`: what is stopped later is not started again by it.
    pub begun: u64,
    pub deadline: Instant,
    at_once: Semaphore,
}

/// What is said, and to whom.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub agent: String,
    pub key: Option<String>,
    pub message: SendMessage,
    /// The same one twice is one message.
    pub idempotency: Option<String>,
}

/// A message that an agent has, or will have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub session: SessionId,
    pub message: MessageId,
}

impl<'a> Talk<'a> {
    pub(crate) fn new(
        supervisor: &'a Supervisor,
        team: TeamId,
        caller: &'a Caller,
        key: Option<&str>,
        wait: Duration,
    ) -> Self {
        let begun = supervisor.engine.teams.begin(team, key);
        let deadline = Instant::now() + wait;
        Self { supervisor, team, caller, begun, deadline, at_once: Semaphore::new(AT_ONCE) }
    }

    fn engine(&self) -> &Arc<Engine> {
        &self.supervisor.engine
    }

    /// All of them side by side: one that is slow or fails keeps no other from its answer. In their order.
    pub(crate) async fn ask_all(&self, all: impl IntoIterator<Item = Said>) -> Vec<Answer> {
        futures::future::join_all(all.into_iter().map(async |said| self.ask(&said).await)).await
    }

    /// Says it, and waits until the deadline for the result of the turn in which it was delivered.
    pub(crate) async fn ask(&self, said: &Said) -> Answer {
        let sent = self.send(said).await;
        match sent {
            Ok(sent) => self.answer(&said.agent, said.key.as_deref(), sent).await,
            Err(error) => unsaid(said, error.problem()),
        }
    }

    /// On disk when this returns.
    pub(crate) async fn send(&self, said: &Said) -> Result<Sent> {
        let key = conversation(said.key.as_deref())?;
        let _one_of_few = self.at_once.acquire().await;
        let gate = self.engine().teams.gate(self.team, &said.agent);
        let _open = gate.open.read().await;
        let idempotency = said.idempotency.as_deref();
        let sent = |session, message| Sent { session, message };
        if let Some(known) = self.known(said).await? {
            let again = self.supervisor.send(known.session, said.message.clone(), idempotency, self.caller);
            let accepted = again.await?;
            self.go_on(&gate, &said.agent, key, known).await?;
            return Ok(sent(known.session, accepted.message_id));
        }
        for _ in 0..TRIES {
            let session = self.live(&gate, &said.agent, key).await?;
            match self.supervisor.send(session, said.message.clone(), idempotency, self.caller).await {
                Ok(accepted) => return Ok(sent(session, accepted.message_id)),
                // It has ended since.
                Err(Error::Refused(problem)) if is_over(problem.code) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::new(ErrorCode::CliExited, format!("agent {:?} ends whenever it is begun", said.agent)))
    }

    /// The message, if it was said before: in this conversation, or in one that has been cleared since.
    pub(crate) async fn known(&self, said: &Said) -> Result<Option<Sent>> {
        let Some(idempotency) = &said.idempotency else { return Ok(None) };
        let key = conversation(said.key.as_deref())?;
        let team = Held::load(self.engine(), self.team).await?;
        let newest = team.view.generation(&said.agent, key);
        for generation in newest.into_iter().flat_map(|newest| (0..=newest).rev()) {
            let session = self.team.session(&said.agent, key, generation);
            let message = MessageId::of_key(session, idempotency);
            if self.engine().store.message(session, message).await?.is_some() {
                return Ok(Some(Sent { session, message }));
            }
        }
        Ok(None)
    }

    /// A message that is asked for again, in a session that has ended without an answer to it: the session goes on,
    /// unless it was somebody's wish that it ends.
    async fn go_on(&self, gate: &Gate, agent: &str, key: &str, sent: Sent) -> Result<()> {
        let Some(row) = self.engine().store.session(sent.session).await? else { return Ok(()) };
        let waits = match self.engine().store.message(sent.session, sent.message).await? {
            Some(message) => !is_settled(message.state),
            None => false,
        };
        let stopped = shown::view(&row)?.exit.is_some_and(|exit| exit.cause == ExitCause::Stopped);
        let current = Held::load(self.engine(), self.team).await?.session(agent, key) == Some(sent.session);
        if waits && row.state.is_final() && !stopped && current && !gate.was_stopped_since(self.begun) {
            self.live(gate, agent, key).await?;
        }
        Ok(())
    }

    /// The session of a conversation, begun or resumed where it is not alive.
    pub(crate) async fn begin(&self, agent: &str, key: &str) -> Result<SessionId> {
        let _one_of_few = self.at_once.acquire().await;
        let gate = self.engine().teams.gate(self.team, agent);
        let _open = gate.open.read().await;
        self.live(&gate, agent, key).await
    }

    /// With the gate held open.
    async fn live(&self, gate: &Gate, agent: &str, key: &str) -> Result<SessionId> {
        let (engine, supervisor) = (self.engine(), self.supervisor);
        for _ in 0..TRIES {
            if gate.was_stopped_since(self.begun) {
                return Err(Error::with_hint(
                    ErrorCode::SessionEnded,
                    format!("agent {agent:?} was stopped meanwhile"),
                    "whatever it is asked from now on starts it again",
                ));
            }
            let mut team = Held::load(engine, self.team).await?;
            team.agent(agent)?;
            let Some(session) = team.session(agent, key) else {
                // Known before it is begun: whoever stops the team finds it.
                team.view.open(agent, key).map_err(|error| {
                    let hint = "`castra team rm` removes the team with all of them";
                    Error::with_hint(ErrorCode::Overloaded, format!("{agent:?}: {error}"), hint)
                })?;
                moved(team.commit(engine).await)?;
                continue;
            };
            let begun = match engine.store.session(session).await? {
                Some(row) if !row.state.is_final() => return Ok(session),
                Some(_) => supervisor.resume(session, Default::default(), &caller(self.team)).await,
                None => {
                    let spec = team.session_spec(engine, agent, key).await?;
                    // Whoever made the team was allowed these folders, and not others in their place.
                    engine.still_there(spec.workdir.iter().chain(&spec.add_dirs)).await?;
                    supervisor.begin(Plan::new(session, spec), None, &caller(self.team)).await
                }
            };
            match begun {
                Ok(_) => return Ok(session),
                // Somebody else was faster.
                Err(Error::Commit(CommitError::RunConflict { .. })) => {}
                Err(Error::Commit(CommitError::SessionExists(_))) => {
                    if engine.store.session(session).await?.is_none() {
                        // It was removed, and its id is spent: the conversation is gone, and begins anew.
                        team.view.renew(agent, key);
                        moved(team.commit(engine).await)?;
                    }
                }
                Err(Error::Refused(problem)) if problem.code == ErrorCode::Conflict => {
                    let alive = engine.store.session(session).await?.is_some_and(|row| !row.state.is_final());
                    if !alive {
                        return Err(Error::Refused(problem));
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::new(
            ErrorCode::Conflict,
            format!("agent {agent:?} is begun and ended by others all the time"),
        ))
    }

    /// What has become of a message at the deadline, or before when it is over.
    pub(crate) async fn answer(&self, agent: &str, key: Option<&str>, sent: Sent) -> Answer {
        let mut answer = Answer {
            agent: agent.to_owned(),
            key: key.map(str::to_owned),
            session_id: Some(sent.session),
            message_id: Some(sent.message),
            state: AnswerState::Waiting,
            text: None,
            error: None,
            result: None,
        };
        if let Err(error) = self.settle(&mut answer, sent).await {
            answer.state = AnswerState::Failed;
            answer.error = Some(error.problem());
        }
        answer
    }

    async fn settle(&self, answer: &mut Answer, sent: Sent) -> Result<()> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let found = self.supervisor.wait(sent.session, sent.message, left).await?;
        let conflict = |detail: &str| Err(Error::new(ErrorCode::Conflict, detail));
        answer.result = found.result;
        match (found.state, &answer.result) {
            (_, Some(result)) if result.ok => {
                answer.state = AnswerState::Answered;
                answer.text = Some(result.text.clone());
                Ok(())
            }
            (_, Some(result)) => Err(Error::Turn(Box::new(result.clone()))),
            (MessageState::Withdrawn, None) => conflict("the message was withdrawn"),
            (state, None) => {
                let session = self.supervisor.show(sent.session).await?;
                match session.exit.filter(|_| session.state.is_final()) {
                    Some(exit) => Err(Error::with_hint(
                        ErrorCode::CliExited,
                        match exit.detail {
                            Some(detail) => format!("the session was over before the answer: {detail}"),
                            None => "the session was over before the answer".to_owned(),
                        },
                        "the next message to the agent resumes the conversation",
                    )),
                    None if state == MessageState::Interrupted => {
                        conflict("the turn was interrupted before it had a result")
                    }
                    None => Ok(()),
                }
            }
        }
    }
}

/// It could not even be said.
fn unsaid(said: &Said, problem: Problem) -> Answer {
    Answer {
        agent: said.agent.clone(),
        key: said.key.clone(),
        session_id: None,
        message_id: None,
        state: AnswerState::Failed,
        text: None,
        error: Some(problem),
        result: None,
    }
}

/// Somebody else was faster: it is looked at anew.
pub(crate) fn moved(committed: Result<()>) -> Result<()> {
    match committed {
        Err(Error::Team(TeamError::Moved(_))) => Ok(()),
        done => done,
    }
}

const fn is_over(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::SessionEnded | ErrorCode::SessionLost | ErrorCode::SessionNotFound)
}

const fn is_settled(state: MessageState) -> bool {
    matches!(state, MessageState::Answered | MessageState::Interrupted | MessageState::Withdrawn)
}

//! The handle to a team: its agents asked by name, from the program that embeds the supervisor.
//!
//! ```
//! # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/demo/setup.in"));
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let home = tempfile::tempdir()?;
//! use castra_supervisor::Supervisor;
//!
//! let supervisor = Supervisor::open(demo_config(home.path()).await?).await?;
//! let spec = serde_json::from_str(
//!     r#"{"agents": {"one": {"session": {"demo": true}}, "two": {"session": {"demo": true}}}}"#,
//! )?;
//! let team = supervisor.team_up(spec).await?;
//!
//! // Each key is a conversation of its own.
//! team.ask("one", "remember the number 7").await?;
//! let other = team.keyed("other").ask("one", "what did I ask you before?").await?;
//! assert!(!other.contains('7'), "{other}");
//!
//! // One's answer becomes another's message.
//! let answer = team.route("one", "remember 8", "two", Some("remember this: {message}")).await?;
//! assert_eq!(answer, "I will remember: this: I will remember: 8");
//!
//! for (agent, answer) in team.fan_out("hello").await? {
//!     println!("{agent}: {}", answer?);
//! }
//! team.stop().await?;
//! # team.remove().await?;
//! # supervisor.close().await;
//! # Ok(()) }
//! ```

use super::Session;
use crate::supervisor::{Caller, Supervisor};
use crate::{Error, Result};
use castra_proto::team::{
    Answer, AnswerState, AskAgent, ClearTeam, Fanout, FlowRun, RouteAnswer, RunFlow, StopTeam,
};
use castra_proto::{ErrorCode, Problem, TeamId, TeamSpec};
use std::future::Future;
use std::time::Duration;
use uuid::Uuid;

/// One wait; it waits as often as it must.
const WAIT: Duration = Duration::from_secs(3600);

/// A team, driven from the program that embeds the supervisor. A cheap handle: dropping it ends nothing.
#[derive(Clone)]
pub struct Team {
    supervisor: Supervisor,
    id: TeamId,
    caller: Caller,
    /// The conversation.
    key: Option<String>,
}

impl std::fmt::Debug for Team {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Team").field("id", &self.id).field("key", &self.key).finish_non_exhaustive()
    }
}

impl Supervisor {
    /// A new team, its agents ready unless it is `lazy`.
    ///
    /// Errors: `invalid_request` and `conflict` for what the spec asks, `cli_start_failed`: then none of them runs.
    pub async fn team_up(&self, spec: TeamSpec) -> Result<Team> {
        let caller = Caller::embedded();
        let made = self.create_team(spec, false, None, &caller).await?;
        Ok(Team { supervisor: self.clone(), id: made.id, caller, key: None })
    }

    /// A handle to a team that exists: by id, by a unique prefix of it, or by name.
    ///
    /// Errors: `not_found`; `conflict` where several begin like this.
    pub async fn find_team(&self, reference: &str) -> Result<Team> {
        let id = self.resolve_team(reference).await?;
        Ok(Team { supervisor: self.clone(), id, caller: Caller::embedded(), key: None })
    }
}

impl Team {
    pub fn id(&self) -> TeamId {
        self.id
    }

    /// The same team, in another conversation with each agent.
    #[must_use]
    pub fn keyed(&self, key: &str) -> Self {
        Self { key: Some(key.to_owned()), ..self.clone() }
    }

    /// What each agent does, has done and said last.
    pub async fn show(&self) -> Result<castra_proto::Team> {
        self.supervisor.team(self.id).await
    }

    /// The session of this conversation with an agent.
    ///
    /// Errors: `not_found` for another agent, and before the first message.
    pub async fn session(&self, agent: &str) -> Result<Session> {
        let session = self.supervisor.team_session(self.id, agent, self.key.as_deref()).await?;
        self.supervisor.session(&session.to_string()).await
    }

    /// Says something, without waiting for the answer. On disk when this returns.
    ///
    /// Errors: `not_found` for another agent, and those of [`Session::send`].
    pub async fn send(&self, agent: &str, text: &str) -> Result<Answer> {
        self.say(agent, text, &fresh(), Duration::ZERO).await
    }

    /// Says something and waits, without a limit, for the answer to it. Dropping the future takes nothing back.
    ///
    /// Errors: those of [`Team::send`], and why there is no answer: that of the turn, `cli_exited` when the session was
    /// over before.
    pub async fn ask(&self, agent: &str, text: &str) -> Result<String> {
        let key = fresh();
        let answer = self.until_over(|| self.say(agent, text, &key, WAIT), |answer| answer.state).await?;
        text_of(answer)
    }

    async fn say(&self, agent: &str, text: &str, key: &str, wait: Duration) -> Result<Answer> {
        let ask = AskAgent { text: text.to_owned(), key: self.key.clone(), ..AskAgent::default() };
        self.supervisor.ask_agent(self.id, agent, ask, Some(key), wait, &self.caller).await
    }

    /// Asks `from`, and gives its answer to `to`, in `wrap` with `{message}` replaced by it; that one's answer.
    ///
    /// Errors: as of [`Team::ask`], of whichever of the two did not answer.
    pub async fn route(&self, from: &str, text: &str, to: &str, wrap: Option<&str>) -> Result<String> {
        let route = RouteAnswer {
            from: Some(from.to_owned()),
            text: Some(text.to_owned()),
            to: to.to_owned(),
            wrap: wrap.map(str::to_owned),
            key: self.key.clone(),
        };
        let key = fresh();
        let routed = self
            .until_over(
                || self.supervisor.route(self.id, &route, Some(&key), WAIT, &self.caller),
                |routed| routed.state,
            )
            .await?;
        match routed.answer.or(routed.asked) {
            Some(answer) => text_of(answer),
            None => Err(Error::new(ErrorCode::Internal, "a route without an answer")),
        }
    }

    /// Asks all agents the same, side by side: the answer of each, or why there is none.
    pub async fn fan_out(&self, text: &str) -> Result<Vec<(String, Result<String>)>> {
        let fanout = Fanout { text: text.to_owned(), agents: Vec::new(), key: self.key.clone() };
        let key = fresh();
        let answers = self
            .until_over(
                || self.supervisor.fan_out(self.id, &fanout, Some(&key), WAIT, &self.caller),
                |answers| answers.state,
            )
            .await?;
        Ok(answers.answers.into_iter().map(|answer| (answer.agent.clone(), text_of(answer))).collect())
    }

    /// Runs the team's flow to its end, or to the step that fails.
    ///
    /// Errors: `invalid_request` for a team without a flow, and for a message that is missing.
    pub async fn run(&self, message: Option<&str>) -> Result<FlowRun> {
        let run = RunFlow { message: message.map(str::to_owned), key: self.key.clone() };
        let key = fresh();
        self.until_over(
            || self.supervisor.run_flow(self.id, &run, Some(&key), usize::MAX, WAIT, &self.caller),
            |run| run.state,
        )
        .await
    }

    /// The next message to an agent, in this conversation, is the first one.
    pub async fn clear(&self, agent: &str) -> Result<castra_proto::Team> {
        let request = ClearTeam { agent: Some(agent.to_owned()), key: self.key.clone() };
        self.supervisor.clear_team(self.id, &request, &self.caller).await
    }

    /// Stops all agents in all conversations; returns when none of their processes is left.
    pub async fn stop(&self) -> Result<castra_proto::Team> {
        self.supervisor.stop_team(self.id, &StopTeam::default(), &self.caller).await
    }

    /// Stops one agent in all its conversations.
    pub async fn stop_agent(&self, agent: &str) -> Result<castra_proto::Team> {
        let request = StopTeam { agent: Some(agent.to_owned()) };
        self.supervisor.stop_team(self.id, &request, &self.caller).await
    }

    /// Stops and removes the team with all its sessions.
    pub async fn remove(&self) -> Result<()> {
        self.supervisor.remove_team(self.id, true, &self.caller).await
    }

    /// Asks again, with the same key, until nobody is waited for; or until the supervisor is closed.
    async fn until_over<T, F: Future<Output = Result<T>>>(
        &self,
        ask: impl Fn() -> F,
        state: impl Fn(&T) -> AnswerState,
    ) -> Result<T> {
        let mut closing = self.supervisor.engine.closing.subscribe();
        loop {
            let answer = tokio::select! {
                answer = ask() => answer?,
                _ = closing.wait_for(|closing| *closing) => return Err(super::closed()),
            };
            if state(&answer) != AnswerState::Waiting {
                return Ok(answer);
            }
        }
    }
}

fn fresh() -> String {
    Uuid::new_v4().to_string()
}

fn text_of(answer: Answer) -> Result<String> {
    match (answer.text, answer.error) {
        (Some(text), _) => Ok(text),
        (None, Some(problem)) => Err(Error::Refused(problem)),
        (None, None) => {
            Err(Error::Refused(Problem::new(ErrorCode::Internal, "neither an answer nor an error")))
        }
    }
}

//! Teams: named agents with a session each for every conversation, what they are asked, and what they answer.

use crate::api::{IfBusy, TurnResult};
use crate::session::{Activity, Exit, Turn};
use crate::{MessageId, Problem, RunState, SessionId, SessionSpec, TeamId, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Named agents that work beside each other. Unknown fields are refused.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TeamSpec {
    /// A name that no other team has; usable wherever an id is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// By name: letters, digits, `.`, `_` and `-`. One at least, and 64 at most.
    pub agents: BTreeMap<String, AgentSpec>,
    /// Start each agent with the first message to it, and none when the team is made.
    #[serde(skip_serializing_if = "is_false")]
    pub lazy: bool,
    /// What `run` does, step by step.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub flow: Vec<Step>,
}

/// One agent of a team.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgentSpec {
    /// The session of each of its conversations.
    pub session: SessionSpec,
}

/// One step of a flow: exactly one of `ask`, `route` and `fanout`.
///
/// In `text` and `wrap`, `{message}` is what the flow was run with, and `{name}` the answer of the earlier step that
/// says `as: name`; of a fan-out also `{name.agent}`. All other braces are text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Step {
    /// The agent that is asked `text`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ask: Option<String>,
    /// The agent that is given the answer of the step `from`, in `wrap`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// The agents that are asked `text` side by side.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fanout: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The name of an earlier step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// What is said instead of the bare answer; here `{message}` is that answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wrap: Option<String>,
    /// The name of this step's answer.
    #[serde(rename = "as", skip_serializing_if = "Option::is_none")]
    pub as_: Option<String>,
    /// The conversation; that of the run when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// How many of a fan-out must answer for the flow to go on.
    #[serde(skip_serializing_if = "Need::is_all")]
    pub need: Need,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Need {
    #[default]
    All,
    /// One is enough; what failed is left out of the answer.
    Any,
}

impl Need {
    fn is_all(&self) -> bool {
        *self == Self::All
    }
}

/// A team as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Team {
    pub id: TeamId,
    pub name: Option<String>,
    pub agents: BTreeMap<String, TeamAgent>,
    pub created_at: Timestamp,
    /// When a conversation was last begun.
    pub updated_at: Timestamp,
    /// Secret values are `***`.
    pub spec: TeamSpec,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TeamAgent {
    /// In any of its conversations.
    pub busy: bool,
    /// The one without a key first.
    pub conversations: Vec<Conversation>,
}

/// One conversation with an agent, and the session that it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Conversation {
    pub key: Option<String>,
    /// How often it was begun anew.
    pub generation: u32,
    /// Unset: nothing was said in it yet. The fields below are the session's.
    pub session_id: Option<SessionId>,
    pub state: Option<RunState>,
    pub busy: bool,
    /// Since when it is in this state.
    pub since: Option<Timestamp>,
    pub turn: Turn,
    pub last_activity: Option<Activity>,
    /// The text of its newest result, at most 2000 characters.
    pub last_output: Option<String>,
    /// Messages that wait for their turn.
    pub queued: u32,
    /// Permission requests that wait for an answer.
    pub pending: u32,
    pub cost_usd: f64,
    pub exit: Option<Exit>,
}

/// `POST /teams/{id}/agents/{agent}/messages`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AskAgent {
    pub text: String,
    /// Sent before the text, as `Context:\n…\n\nUser message:\n…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    pub if_busy: IfBusy,
    /// The conversation; each key has one of its own, and so has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// What became of a message to an agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Answer {
    pub agent: String,
    pub key: Option<String>,
    /// Unset: it could not be sent.
    pub session_id: Option<SessionId>,
    pub message_id: Option<MessageId>,
    pub state: AnswerState,
    /// The answer: only of a turn that truly succeeded.
    pub text: Option<String>,
    /// Why there is none.
    pub error: Option<Problem>,
    /// Of the turn in which the message was delivered.
    pub result: Option<TurnResult>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum AnswerState {
    /// Its turn is not over.
    Waiting,
    Answered,
    Failed,
}

/// `POST /teams/{id}/route`: one agent's answer becomes another's message. An error never does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RouteAnswer {
    /// The agent whose answer is given on. Unset: `text` itself is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// With `from`: what that agent is asked first. Unset: its newest answer is given on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    pub to: String,
    /// What is said instead of the bare answer. `{message}` is replaced by it; other braces are text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wrap: Option<String>,
    /// The conversation, with both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// What became of a route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Routed {
    pub state: AnswerState,
    /// Of the agent that was asked first.
    pub asked: Option<Answer>,
    /// Of the agent that it was given to. Unset: there was nothing to give.
    pub answer: Option<Answer>,
}

/// `POST /teams/{id}/fanout`: several are asked the same, side by side.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Fanout {
    pub text: String,
    /// All of the team when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub agents: Vec<String>,
    /// The conversation, with each of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// What became of a fan-out: one answer, or error, for each agent, in the order in which they were named.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Answers {
    /// `waiting` while one is; `failed` when one has.
    pub state: AnswerState,
    pub answers: Vec<Answer>,
}

/// `POST /teams/{id}/run`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunFlow {
    /// What `{message}` stands for in the flow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The conversation, in every step that names none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// How far a flow is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FlowRun {
    /// `answered`: every step has what it needs. `failed`: the last of `steps` has not, and the flow ended there.
    pub state: AnswerState,
    /// Those that were begun.
    pub steps: Vec<StepRun>,
    /// Steps of the whole flow.
    pub of: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StepRun {
    /// From 1.
    pub n: u32,
    #[serde(rename = "as")]
    pub as_: Option<String>,
    pub state: AnswerState,
    pub answers: Vec<Answer>,
}

/// `POST /teams/{id}/clear`: the next message begins a fresh conversation. The session of the old one is stopped, and
/// kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClearTeam {
    /// Only with this one; with all when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Of this conversation; of the one without a key when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// `POST /teams/{id}/stop`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StopTeam {
    /// Only this one; all when unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
}

fn is_false(value: &bool) -> bool {
    !*value
}

//! A team as it was read, and the transaction that changes it. Refuses policy.

use super::spec::no_agent;
use super::view::TeamView;
use crate::engine::{Engine, json_text, now};
use crate::{Error, Result, redact};
use castra_proto::team::AgentSpec;
use castra_proto::{ErrorCode, SessionId, SessionSpec, TeamId, TeamSpec, Timestamp};
use castra_store::{TeamCommit, TeamRow};
use serde::de::DeserializeOwned;

/// As one commit has left it.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub id: TeamId,
    pub name: Option<String>,
    head: u64,
    /// Without its secrets.
    pub spec: TeamSpec,
    pub view: TeamView,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl Held {
    pub(crate) async fn load(engine: &Engine, id: TeamId) -> Result<Self> {
        let row = engine.store.team(id).await?.ok_or_else(|| no_team(&id.to_string()))?;
        Self::of(row)
    }

    pub(crate) fn of(row: TeamRow) -> Result<Self> {
        Ok(Self {
            id: row.id,
            head: row.head,
            spec: parse(row.id, "spec", &row.spec)?,
            view: parse(row.id, "state", &row.view)?,
            name: row.name,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }

    /// Refused as `Moved` when somebody else was faster.
    pub(crate) async fn commit(&self, engine: &Engine) -> Result<()> {
        let commit = TeamCommit {
            team: self.id,
            at: now(),
            create: None,
            head: Some(self.head),
            view: json_text(&self.view)?,
        };
        engine.store.commit_team(commit).await?;
        Ok(())
    }

    pub(crate) fn agent(&self, name: &str) -> Result<&AgentSpec> {
        self.spec.agents.get(name).ok_or_else(|| no_agent(&self.spec, name))
    }

    /// The session that a conversation is now. None: nothing was said in it yet.
    pub(crate) fn session(&self, agent: &str, key: &str) -> Option<SessionId> {
        Some(self.id.session(agent, key, self.view.generation(agent, key)?))
    }

    /// What the session of a conversation is to be: with its secrets, and labels that tell whose it is.
    pub(crate) async fn session_spec(&self, engine: &Engine, agent: &str, key: &str) -> Result<SessionSpec> {
        let shown = json_text(&self.agent(agent)?.session)?;
        let secrets = engine.store.team_secrets(self.id).await?;
        let mut spec = redact::restore(&shown, secrets.and_then(|all| all.get(agent).cloned()))?;
        let team = self.name.clone().unwrap_or_else(|| self.id.to_string());
        let mut label = |name: &str, value: &str| spec.labels.insert(name.to_owned(), value.to_owned());
        label("team", &team);
        label("agent", agent);
        if !key.is_empty() {
            label("key", key);
        }
        Ok(spec)
    }
}

fn parse<T: DeserializeOwned>(id: TeamId, what: &str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| {
        Error::new(ErrorCode::Internal, format!("the stored {what} of team {id} cannot be read: {error}"))
    })
}

pub(crate) fn no_team(reference: &str) -> Error {
    Error::with_hint(
        ErrorCode::NotFound,
        format!("there is no team {reference:?}"),
        "`castra team list` lists all teams",
    )
}

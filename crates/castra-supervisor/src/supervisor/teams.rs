//! Teams: made, shown, ended, and which session each of their conversations is.

use super::start::{check_scope, hash};
use super::tasks::TRIES;
use super::{Caller, Supervisor, read_cursor, the_one};
use crate::engine::{json_text, now};
use crate::team::held::{Held, no_team};
use crate::team::spec::{check, conversation};
use crate::team::talk::{Talk, caller as of_team, moved};
use crate::team::view::TeamView;
use crate::{Error, Result, redact, shown};
use castra_proto::api::{Page, TurnResult};
use castra_proto::session::{ExitCause, Turn};
use castra_proto::team::{ClearTeam, Conversation, StopTeam, TeamAgent};
use castra_proto::{ErrorCode, RunState, SessionId, Team, TeamId, TeamSpec};
use castra_store::{NewTeam, TeamCommit, TeamRow};
use futures::future::join_all;
use serde_json::{Map, Value};
use std::time::Duration;

const PAGE: usize = 50;
/// Characters of a result that are shown.
const OUTPUT: usize = 2000;

impl Supervisor {
    /// A new team. Unless it is `lazy`, each of its agents is ready when this returns; where one cannot be started, none
    /// is left and neither is the team, unless `keep`. With `key` (Idempotency-Key) a retry gets the team of the first
    /// call; another body is refused.
    ///
    /// Errors: `invalid_request` with the reason, before anything is made; `conflict` for a taken name;
    /// `cli_start_failed` with what each agent that failed says.
    pub async fn create_team(
        &self,
        spec: TeamSpec,
        keep: bool,
        key: Option<&str>,
        caller: &Caller,
    ) -> Result<Team> {
        let id = key.map_or_else(TeamId::now, |key| TeamId::of_key(&caller.by, key));
        let request_hash = hash(&spec);
        check(&spec)?;
        let mut spec = spec;
        for agent in spec.agents.values_mut() {
            check_scope(&agent.session, caller)?;
            redact::refuse_masked(redact::split(&agent.session).1.as_ref())?;
            self.settle_folders(&mut agent.session, caller).await?;
            self.check_spec(SessionId::now(), &agent.session).await?;
        }
        let mut secrets = Map::new();
        let mut shown = spec.clone();
        for (name, agent) in &mut shown.agents {
            let (plain, secret) = redact::split(&agent.session);
            agent.session = plain;
            secrets.extend(secret.map(|secret| (name.clone(), secret)));
        }
        let commit = TeamCommit {
            team: id,
            at: now(),
            create: Some(NewTeam {
                name: spec.name.clone(),
                request_hash,
                spec: json_text(&shown)?,
                secrets: (!secrets.is_empty()).then_some(Value::Object(secrets)),
            }),
            head: None,
            view: json_text(&TeamView::default())?,
        };
        let made = self.engine.store.commit_team(commit).await?;
        crate::failpoint::failpoint!("team.created");
        if !spec.lazy {
            let failed = self.start_agents(id, &spec, caller).await;
            if !failed.is_empty() && !keep && (!made.existed || self.is_untouched(id).await?) {
                self.remove_team(id, true, caller).await?;
                return Err(Error::with_hint(
                    ErrorCode::CliStartFailed,
                    failed.join("; "),
                    "none of the team's agents runs; `--keep` keeps what could be started",
                ));
            }
        }
        self.team(id).await
    }

    /// All of them at once; what those say that could not be started. One that was there already, of the first call of
    /// this request, stays as it is.
    async fn start_agents(&self, id: TeamId, spec: &TeamSpec, caller: &Caller) -> Vec<String> {
        let talk = Talk::new(self, id, caller, None, Duration::ZERO);
        let all = spec.agents.keys().map(async |agent| {
            let session = id.session(agent, "", 0);
            let started = match self.engine.store.session(session).await {
                Ok(Some(_)) => self.ready(session).await,
                Ok(None) => match talk.begin(agent, "").await {
                    Ok(session) => self.ready(session).await,
                    Err(error) => Err(error),
                },
                Err(error) => Err(error.into()),
            };
            started.err().map(|error| format!("{agent}: {}", error.problem().detail))
        });
        join_all(all).await.into_iter().flatten().collect()
    }

    /// Nothing was said to any of its agents: the call that made it was cut off, and this is the same one.
    async fn is_untouched(&self, id: TeamId) -> Result<bool> {
        let team = Held::load(&self.engine, id).await?;
        for session in team.spec.agents.keys().flat_map(|agent| team.view.sessions(id, agent)) {
            if !self.engine.store.messages(session, &[]).await?.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Waits until claude has answered, or is over; one that somebody has stopped meanwhile could be started.
    async fn ready(&self, id: SessionId) -> Result<()> {
        let mut head = self.engine.hub(id).await?.head.subscribe();
        loop {
            head.mark_unchanged();
            let row = self.row(id).await?;
            match row.state {
                RunState::Queued | RunState::Starting => {}
                RunState::Ended | RunState::Lost => {
                    let exit = shown::view(&row)?.exit;
                    if exit.as_ref().is_some_and(|exit| exit.cause == ExitCause::Stopped) {
                        return Ok(());
                    }
                    let detail = exit.and_then(|exit| exit.detail);
                    let detail = detail.unwrap_or_else(|| format!("its session is {}", row.state));
                    return Err(Error::new(ErrorCode::CliStartFailed, detail));
                }
                RunState::Idle | RunState::Running | RunState::RequiresAction => return Ok(()),
            }
            if head.changed().await.is_err() {
                return Err(Error::session_not_found(&id.to_string()));
            }
        }
    }

    /// Resolves an id, a unique prefix (4 characters or more) or a name.
    pub async fn resolve_team(&self, reference: &str) -> Result<TeamId> {
        Ok(the_one(self.engine.store.find_team(reference).await?, reference, "teams", no_team)?.id)
    }

    pub async fn team(&self, id: TeamId) -> Result<Team> {
        let row = self.engine.store.team(id).await?.ok_or_else(|| no_team(&id.to_string()))?;
        self.shown_team(row).await
    }

    /// Newest first.
    pub async fn teams(&self, cursor: Option<&str>, limit: Option<usize>) -> Result<Page<Team>> {
        let cursor = read_cursor(cursor)?;
        let limit = limit.unwrap_or(PAGE).clamp(1, 500) as u32;
        let rows = self.engine.store.teams(cursor, limit).await?;
        let mut items = Vec::with_capacity(rows.items.len());
        for row in rows.items {
            items.push(self.shown_team(row).await?);
        }
        Ok(Page { items, next: rows.next.map(|next| next.to_string()) })
    }

    async fn shown_team(&self, row: TeamRow) -> Result<Team> {
        let team = Held::of(row)?;
        let mut agents = std::collections::BTreeMap::new();
        for name in team.spec.agents.keys() {
            let mut conversations = Vec::new();
            for (key, generation) in team.view.conversations(name) {
                let session = team.id.session(name, key, generation);
                conversations.push(self.shown_conversation(key, generation, session).await?);
            }
            let busy = conversations.iter().any(|one| one.busy);
            agents.insert(name.clone(), TeamAgent { busy, conversations });
        }
        Ok(Team {
            id: team.id,
            name: team.name,
            agents,
            created_at: team.created_at,
            updated_at: team.updated_at,
            spec: team.spec,
        })
    }

    async fn shown_conversation(&self, key: &str, generation: u32, id: SessionId) -> Result<Conversation> {
        let mut shown = Conversation {
            key: Some(key.to_owned()).filter(|key| !key.is_empty()),
            generation,
            session_id: None,
            state: None,
            busy: false,
            since: None,
            turn: Turn::default(),
            last_activity: None,
            last_output: None,
            queued: 0,
            pending: 0,
            cost_usd: 0.0,
            exit: None,
        };
        let Some(row) = self.engine.store.session(id).await? else { return Ok(shown) };
        let session = self.shown(row).await?;
        let result = self.newest_result(id).await?;
        shown.last_output = result.map(|result| result.text.chars().take(OUTPUT).collect());
        shown.session_id = Some(id);
        shown.state = Some(session.state);
        shown.busy = session.busy;
        shown.since = Some(session.since);
        shown.turn = session.turn;
        shown.last_activity = session.last_activity;
        shown.queued = session.queued;
        shown.pending = u32::try_from(session.pending.len()).unwrap_or(u32::MAX);
        shown.cost_usd = session.cost_usd;
        shown.exit = session.exit;
        Ok(shown)
    }

    pub(super) async fn newest_result(&self, id: SessionId) -> Result<Option<TurnResult>> {
        let found = self.engine.store.newest_result(id).await?;
        Ok(found.and_then(|result| serde_json::from_value(result).ok()))
    }

    /// The session that a conversation with an agent is now.
    ///
    /// Errors: `not_found` for another agent, and where nothing was said yet.
    pub async fn team_session(&self, id: TeamId, agent: &str, key: Option<&str>) -> Result<SessionId> {
        let team = Held::load(&self.engine, id).await?;
        team.agent(agent)?;
        team.session(agent, conversation(key)?).ok_or_else(|| {
            Error::with_hint(
                ErrorCode::NotFound,
                format!("agent {agent:?} has no such conversation"),
                "the first message to it begins it",
            )
        })
    }

    /// The next message begins a fresh conversation; the session of the old one is stopped, and kept.
    pub async fn clear_team(&self, id: TeamId, request: &ClearTeam, caller: &Caller) -> Result<Team> {
        let key = conversation(request.key.as_deref())?;
        let agents = self.agents(id, request.agent.as_deref()).await?;
        let all = agents.iter().map(async |agent| self.clear_agent(id, agent, key, caller).await);
        join_all(all).await.into_iter().collect::<Result<()>>()?;
        self.team(id).await
    }

    async fn clear_agent(&self, id: TeamId, agent: &str, key: &str, caller: &Caller) -> Result<()> {
        let gate = self.engine.teams.gate(id, agent);
        // Nobody speaks to it meanwhile: what was said before is in the old conversation, what comes is in the new one.
        let _shut = gate.open.write().await;
        for _ in 0..TRIES {
            let mut team = Held::load(&self.engine, id).await?;
            let Some(session) = team.session(agent, key) else { return Ok(()) };
            if self.engine.store.session(session).await?.is_none() {
                return Ok(());
            }
            self.stop(session, caller).await?;
            team.view.renew(agent, key);
            let committed = team.commit(&self.engine).await;
            if committed.is_ok() {
                return Ok(());
            }
            moved(committed)?;
        }
        Err(Error::with_hint(ErrorCode::Conflict, "others change the team all the time", "try again"))
    }

    /// Stops the sessions of one agent, or of all; returns when their processes are gone. What they were asked and have
    /// not answered fails; what they are asked from now on starts them again.
    pub async fn stop_team(&self, id: TeamId, request: &StopTeam, caller: &Caller) -> Result<Team> {
        let agents = self.agents(id, request.agent.as_deref()).await?;
        let all = agents.iter().map(async |agent| {
            let gate = self.engine.teams.gate(id, agent);
            self.engine.teams.stop(&gate);
            let _shut = gate.open.write().await;
            self.stop_agent(id, agent, caller).await
        });
        join_all(all).await.into_iter().collect::<Result<()>>()?;
        self.team(id).await
    }

    /// With its gate shut.
    async fn stop_agent(&self, id: TeamId, agent: &str, caller: &Caller) -> Result<()> {
        let sessions = Held::load(&self.engine, id).await?.view.sessions(id, agent);
        let all = sessions.into_iter().map(async |session| match self.stop(session, caller).await {
            Err(error) if error.problem().code == ErrorCode::SessionNotFound => Ok(()),
            done => done.map(drop),
        });
        join_all(all).await.into_iter().collect()
    }

    /// Removes a team with all its sessions, never a `workdir` of the caller's; `force` stops it first.
    ///
    /// Errors: `conflict` while an agent runs.
    pub async fn remove_team(&self, id: TeamId, force: bool, caller: &Caller) -> Result<()> {
        let agents = self.agents(id, None).await?;
        let gates: Vec<_> = agents.iter().map(|agent| self.engine.teams.gate(id, agent)).collect();
        let mut shut = Vec::new();
        for gate in &gates {
            // All of them, and always in the order of their names: two that remove do not wait for each other.
            shut.push(gate.open.write().await);
        }
        let team = Held::load(&self.engine, id).await?;
        if !force {
            for agent in &agents {
                self.check_ended(&team, agent).await?;
            }
        }
        for gate in &gates {
            self.engine.teams.stop(gate);
        }
        let all = agents.iter().map(async |agent| self.stop_agent(id, agent, caller).await);
        join_all(all).await.into_iter().collect::<Result<()>>()?;
        for session in agents.iter().flat_map(|agent| team.view.sessions(id, agent)) {
            match self.remove(session, false, &of_team(id)).await {
                Err(error) if error.problem().code != ErrorCode::SessionNotFound => return Err(error),
                _ => {}
            }
        }
        self.engine.store.remove_team(id).await?;
        self.engine.teams.forget(id);
        Ok(())
    }

    async fn check_ended(&self, team: &Held, agent: &str) -> Result<()> {
        for session in team.view.sessions(team.id, agent) {
            if self.engine.store.session(session).await?.is_some_and(|row| !row.state.is_final()) {
                return Err(Error::with_hint(
                    ErrorCode::Conflict,
                    format!("agent {agent:?} runs"),
                    "`castra team stop` ends it, `castra team rm --force` does both",
                ));
            }
        }
        Ok(())
    }

    /// The one that is named, or all.
    async fn agents(&self, id: TeamId, named: Option<&str>) -> Result<Vec<String>> {
        let team = Held::load(&self.engine, id).await?;
        match named {
            Some(agent) => team.agent(agent).map(|_| vec![agent.to_owned()]),
            None => Ok(team.spec.agents.into_keys().collect()),
        }
    }
}

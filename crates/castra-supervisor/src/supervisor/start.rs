//! Creating a session: everything is checked before anything is made.

use super::{Caller, Supervisor};
use crate::config::Install;
use crate::engine::{json_text, now};
use crate::session::coordinate::Coordination;
use crate::session::finish::{is_not_a_dir, run_dir};
use crate::session::launch::{Around, Place, context, demo, file_texts};
use crate::session::view::{Origin, View};
use crate::{Error, Result, redact};
use castra_claude::launch::{Conversation, check};
use castra_proto::api::{Resume, Scope};
use castra_proto::shim::relay::{At, EntryKind};
use castra_proto::spec::{Home, PermissionMode, SandboxMode};
use castra_proto::{ErrorCode, OwnKind, RunId, RunState, Session, SessionId, SessionSpec};
use castra_store::{Change, Commit, Guard, Idempotency, NewRun, NewSession};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::Path;
use uuid::Uuid;

/// A session to be.
pub(crate) struct Plan {
    pub id: SessionId,
    pub spec: SessionSpec,
    pub origin: Option<Origin>,
    /// The task that it is an attempt at.
    pub coordination: Option<Coordination>,
    /// What was allowed for good in the session that it goes on from.
    pub remembered: Vec<Value>,
    /// claude's id of the conversation.
    pub conversation: Uuid,
    /// What its first event says beyond the state.
    pub said: Value,
    /// Events of a conversation that castra did not start.
    pub history: Vec<castra_store::NewEvent>,
}

impl Plan {
    pub(crate) fn new(id: SessionId, spec: SessionSpec) -> Self {
        let conversation = spec.session_id.unwrap_or_else(Uuid::new_v4);
        Self {
            id,
            spec,
            origin: None,
            coordination: None,
            remembered: Vec::new(),
            conversation,
            said: json!({}),
            history: Vec::new(),
        }
    }
}

impl Supervisor {
    /// With `key` (Idempotency-Key) a retry gets the session of the first call; another body is refused.
    ///
    /// Errors: `invalid_request` with the reason, before anything is made; `conflict` for a taken name.
    pub async fn create(&self, spec: SessionSpec, key: Option<&str>, caller: &Caller) -> Result<Session> {
        check_scope(&spec, caller)?;
        redact::refuse_masked(redact::split(&spec).1.as_ref())?;
        self.check_folders(&spec, caller).await?;
        if let Some(session) = self.taken_up(&spec, caller).await? {
            return Ok(session);
        }
        let once = key.map(|key| Idempotency {
            scope: format!("sessions:{}", caller.by),
            key: key.into(),
            request_hash: hash(&spec),
        });
        self.begin(Plan::new(SessionId::now(), spec), once, caller).await
    }

    /// `resume` and `continue`: the session that goes on, if there is one.
    async fn taken_up(&self, spec: &SessionSpec, caller: &Caller) -> Result<Option<Session>> {
        let id = if let Some(reference) = &spec.resume {
            match self.resolve(reference).await {
                Ok(id) => id,
                Err(not_found) => {
                    let Ok(claude) = reference.parse::<Uuid>() else { return Err(not_found) };
                    match self.engine.store.claude_session(claude).await? {
                        Some(id) => id,
                        None => {
                            let mut spec = spec.clone();
                            spec.resume = None;
                            return self.adopt(reference, spec, caller).await.map(Some);
                        }
                    }
                }
            }
        } else if spec.continue_ {
            let Some(workdir) = &spec.workdir else {
                return Err(Error::with_hint(
                    ErrorCode::InvalidRequest,
                    "`continue` needs a `workdir`",
                    "name the folder whose newest session is to go on",
                ));
            };
            // Sessions are known by their folder's real path.
            let workdir = self.folder("workdir", workdir).await?;
            match self.engine.store.newest_session_of_workdir(&workdir).await? {
                Some(id) => id,
                None => return Ok(None),
            }
        } else {
            return Ok(None);
        };
        if self.row(id).await?.state.is_final() {
            return self.resume(id, Resume::default(), caller).await.map(Some);
        }
        self.show(id).await.map(Some)
    }

    /// One transaction: the session, its first run, its first events. Then it is driven.
    pub(crate) async fn begin(
        &self,
        mut plan: Plan,
        once: Option<Idempotency>,
        caller: &Caller,
    ) -> Result<Session> {
        self.check_plan(&mut plan).await?;
        // Again, by the real paths that will be used. A fork goes on where its parent was put.
        if !matches!(plan.origin, Some(Origin::Fork { .. })) {
            self.check_folders(&plan.spec, caller).await?;
        }
        let engine = &self.engine;
        let at = now();
        let mut view = View {
            claude_session_id: Some(plan.conversation),
            claude_session_ids: vec![plan.conversation],
            origin: plan.origin,
            remembered: plan.remembered,
            coordination: plan.coordination,
            ..View::default()
        };
        view.begin_run(1, at);
        let place = Place::new(&engine.probe, plan.id, &plan.spec);
        let (shown, secrets) = redact::split(&plan.spec);
        let mut said = json!({"from": null, "to": RunState::Queued, "cause": "created", "by": caller.by});
        if let (Some(said), Some(more)) = (said.as_object_mut(), plan.said.as_object()) {
            said.extend(more.clone());
        }
        let created = view.event(at, OwnKind::State, &said);
        let mut commit = Commit::new(plan.id, at)
            .fenced_by(engine.epoch)
            .change(Change::Create(Box::new(NewSession {
                name: plan.spec.name.clone(),
                host: "local".into(),
                owner: engine.owner.clone(),
                mode: plan.spec.mode,
                cwd: Some(place.work),
                spec: json_text(&shown)?,
                spec_secrets: secrets,
                view: json_text(&view)?,
                labels: plan.spec.labels.clone(),
                fork_of: plan.spec.fork_of,
            })))
            .change(Change::ClaudeSession(plan.conversation))
            .change(Change::StartRun(NewRun {
                n: 1,
                id: RunId::now(),
                epoch: engine.epoch,
                dir: run_dir(plan.id, 1).0,
                meta: json!({}),
            }))
            .server_event("session_created", json!({"name": plan.spec.name, "state": RunState::Queued}));
        if let Some(name) = &plan.spec.name {
            commit = commit.guard(Guard::NameFree(name.clone()));
        }
        commit.events = plan.history;
        commit.events.push(created);
        commit.idempotency = once;
        let committed = engine.store.commit(commit).await?;
        let id = committed.duplicate_of.map_or(plan.id, |first| first.session);
        crate::failpoint::failpoint!("created");
        engine.drive(id);
        self.show(id).await
    }

    /// Refuses what cannot work, with the reason, before anything is made.
    async fn check_plan(&self, plan: &mut Plan) -> Result<()> {
        let engine = &self.engine;
        let spec = &mut plan.spec;
        if let Some(name) = &spec.name {
            check_name(name)?;
        }
        if let Some(workdir) = &spec.workdir {
            spec.workdir = Some(self.folder("workdir", workdir).await?);
        }
        for dir in &mut spec.add_dirs {
            *dir = self.folder("add_dirs", dir).await?;
        }
        if let Some(credential) = &spec.credential {
            return Err(later("credential", credential));
        }
        self.check_spec(plan.id, spec).await?;
        if engine.config.claude.install == Install::Never {
            // It will not be there later either.
            engine.provision.resolve(engine.host.as_ref(), None).await?;
        }
        Ok(())
    }

    /// Refuses a spec that claude could not be started with.
    pub(crate) async fn check_spec(&self, id: SessionId, spec: &SessionSpec) -> Result<()> {
        let engine = &self.engine;
        let place = Place::new(&engine.probe, id, spec);
        let around = Around {
            claude: "claude".into(),
            conversation: Conversation::New(Uuid::nil()),
            run_id: RunId::now(),
            demo: demo(engine, spec).await?,
            file_texts: file_texts(engine, spec).await?,
            own_server: None,
            remembered: Vec::new(),
        };
        check(spec, &context(engine, &place, around))?;
        engine.confine(spec, &place).await?;
        Ok(())
    }

    /// The folders that a session names, by their real paths from now on; looked at as they were named and as they are.
    pub(super) async fn settle_folders(&self, spec: &mut SessionSpec, caller: &Caller) -> Result<()> {
        self.check_folders(spec, caller).await?;
        if let Some(workdir) = &mut spec.workdir {
            *workdir = self.folder("workdir", workdir).await?;
        }
        for dir in &mut spec.add_dirs {
            *dir = self.folder("add_dirs", dir).await?;
        }
        self.check_folders(spec, caller).await
    }

    /// An agent can read the folders that it is given, and tell. Whoever may not answer its requests names only folders
    /// that the operator has listed; of others they do not learn whether they exist.
    pub(super) async fn check_folders(&self, spec: &SessionSpec, caller: &Caller) -> Result<()> {
        if caller.scope >= Scope::Approve {
            return Ok(());
        }
        let named = spec.workdir.iter().map(|dir| ("workdir", dir));
        for (field, dir) in named.chain(spec.add_dirs.iter().map(|dir| ("add_dirs", dir))) {
            if !self.is_listed(dir).await? {
                return Err(Error::with_hint(
                    ErrorCode::Forbidden,
                    format!("`{field}` names a folder, which needs the scope `approve`"),
                    "leave it out for a fresh workspace, use a token with the scope `approve`, or have the folder listed \
                     under `workdirs` in castra.toml",
                ));
            }
        }
        Ok(())
    }

    pub(super) async fn is_listed(&self, dir: &str) -> Result<bool> {
        let engine = &self.engine;
        if !dir.starts_with('/') || engine.config.workdirs.is_empty() {
            return Ok(false);
        }
        let Some(real) = engine.real_path(dir).await? else { return Ok(false) };
        for listed in engine.config.workdirs.iter().filter_map(|listed| listed.to_str()) {
            if let Some(listed) = engine.real_path(listed).await?
                && Path::new(&real).starts_with(&listed)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The folder as claude will see it: absolute, existing, links resolved.
    pub(super) async fn folder(&self, field: &str, workdir: &str) -> Result<String> {
        let refused = |why: &str| {
            Err(Error::with_hint(
                ErrorCode::InvalidRequest,
                format!("{field} {workdir:?} {why}"),
                "name an existing folder by its absolute path, or leave it out",
            ))
        };
        if !workdir.starts_with('/') {
            return refused("is not an absolute path");
        }
        let Some(real) = self.engine.real_path(workdir).await? else { return refused("does not exist") };
        // Its key, its database, the homes of other sessions: also where no sandbox keeps them out of sight.
        if Path::new(&real).starts_with(&self.engine.probe.home) {
            return refused("is castra's own");
        }
        match self.engine.host.files().stat(At::dir(real.clone(), "")).await {
            Ok(Some(entry)) if entry.kind == EntryKind::Dir => Ok(real),
            Ok(None) => refused("does not exist"),
            Ok(Some(_)) => refused("is not a folder"),
            Err(error) if is_not_a_dir(&error) => refused("is not a folder"),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whoever may not answer permission requests may not make a session that needs no answers.
pub(super) fn check_scope(spec: &SessionSpec, caller: &Caller) -> Result<()> {
    use castra_proto::spec::PermissionMode::{DontAsk, Plan};
    if caller.scope >= Scope::Approve {
        return Ok(());
    }
    let asks = matches!(spec.permission_mode, PermissionMode::Default | Plan | DontAsk);
    let decides = [
        ("permission_mode", !asks),
        ("allowed_tools", !spec.allowed_tools.is_empty()),
        ("settings", spec.settings.is_some()),
        ("setting_sources", spec.setting_sources.as_ref().is_some_and(|sources| !sources.is_empty())),
        ("mcp_servers", !spec.mcp_servers.is_empty()),
        ("system_prompt_file", spec.system_prompt_file.is_some()),
        ("append_system_prompt_file", spec.append_system_prompt_file.is_some()),
        ("plugins", !spec.plugins.is_empty()),
        ("agents", spec.agents.is_some()),
        ("extra_args", !spec.extra_args.is_empty()),
        ("sandbox", spec.sandbox == SandboxMode::Off),
        ("home", spec.home == Home::User),
        ("env", !spec.env.is_empty()),
    ];
    match decides.iter().find(|(_, decides)| *decides) {
        None => Ok(()),
        Some((field, _)) => Err(Error::with_hint(
            ErrorCode::Forbidden,
            format!("`{field}` may decide what claude does without asking, which needs the scope `approve`"),
            "leave it out, or use a token with the scope `approve`",
        )),
    }
}

pub(crate) fn check_name(name: &str) -> Result<()> {
    let good = name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if good
        && (1..=64).contains(&name.len())
        && !name.starts_with(['.', '-'])
        && name.parse::<Uuid>().is_err()
    {
        return Ok(());
    }
    Err(Error::with_hint(
        ErrorCode::InvalidRequest,
        format!("{name:?} cannot be a name"),
        "use 1 to 64 letters, digits, `.`, `_` or `-`, beginning with a letter or digit",
    ))
}

fn later(field: &str, value: &str) -> Error {
    Error::new(
        ErrorCode::InvalidRequest,
        format!("{field} {value:?}: this castra does not have credentials yet"),
    )
}

pub(crate) fn hash(request: &impl serde::Serialize) -> [u8; 32] {
    Sha256::digest(serde_json::to_vec(request).unwrap_or_default()).into()
}

//! From a session's spec to a running shim: workspace, CLI, files, sandbox, start.

use super::actor::Actor;
use super::finish::{Ending, is_missing};
use super::fixed;
use super::state::Cause;
use super::view::Origin;
use crate::engine::{Engine, now};
use crate::host::{Files, ShimReader};
use crate::terminal::DEFAULT_SIZE;
use crate::{Error, Result};
use castra_claude::config::Settled;
use castra_claude::launch::{Conversation, Demo, Launch, LaunchContext, launch};
use castra_claude::transcript::project_key;
use castra_proto::shim::relay::{At, Probe};
use castra_proto::shim::{Pty, StartSpec};
use castra_proto::spec::{Home, Mode};
use castra_proto::{ErrorCode, RunId, SessionId, SessionSpec};
use castra_store::SessionRow;
use serde_json::Value;
use std::collections::BTreeMap;
use uuid::Uuid;

/// Where a session's things are on its host. All absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// `$CASTRA_HOME/sessions/<id>`.
    pub session_dir: String,
    pub work: String,
    /// HOME for claude.
    pub home: String,
    pub config_dir: String,
    /// For files that castra makes for claude.
    pub files_dir: String,
    /// The transcripts' folder.
    pub project_dir: String,
}

impl Place {
    pub(crate) fn new(probe: &Probe, id: SessionId, spec: &SessionSpec) -> Self {
        let session_dir = format!("{}/sessions/{id}", probe.home);
        let work = spec.workdir.clone().unwrap_or_else(|| format!("{session_dir}/work"));
        let home = match spec.home {
            Home::Isolated => format!("{session_dir}/home"),
            Home::User => probe.user_home.clone(),
        };
        let config_dir = format!("{home}/.claude");
        Self {
            project_dir: format!("{config_dir}/projects/{}", project_key(&work)),
            files_dir: format!("{session_dir}/home/.castra"),
            config_dir,
            work,
            home,
            session_dir,
        }
    }
}

/// What the caller's context adds to a spec, for `check` and for the start.
pub(crate) struct Around {
    pub claude: String,
    pub conversation: Conversation,
    pub run_id: RunId,
    pub demo: Option<Demo>,
    pub file_texts: BTreeMap<String, String>,
    pub own_server: Option<String>,
    pub remembered: Vec<Value>,
}

pub(crate) fn context(engine: &Engine, place: &Place, around: Around) -> LaunchContext {
    LaunchContext {
        claude: around.claude,
        home: place.home.clone(),
        config_dir: place.config_dir.clone(),
        workdir: place.work.clone(),
        files_dir: place.files_dir.clone(),
        inherited: engine.config.inherited.clone(),
        run_id: around.run_id,
        conversation: around.conversation,
        is_root: engine.probe.uid == 0,
        allow_root_bypass: engine.config.claude.allow_root_bypass,
        demo: around.demo,
        file_texts: around.file_texts,
        own_server: around.own_server,
        remembered: around.remembered,
    }
}

/// The texts of the `*_file` fields, read on the host.
pub(crate) async fn file_texts(engine: &Engine, spec: &SessionSpec) -> Result<BTreeMap<String, String>> {
    let mut texts = BTreeMap::new();
    for file in [&spec.system_prompt_file, &spec.append_system_prompt_file].into_iter().flatten() {
        // No link is followed on the way, so that the name is where it lies.
        if std::path::Path::new(file).starts_with(&engine.probe.home) {
            return Err(Error::new(ErrorCode::InvalidRequest, format!("{file} is castra's own")));
        }
        let at = At::dir("/", file.trim_start_matches('/'));
        let bytes = whole(engine.host.files(), at).await.map_err(|error| {
            Error::with_hint(
                ErrorCode::InvalidRequest,
                format!("{file}: {error}"),
                "name an existing file by its absolute path, without links",
            )
        })?;
        let text = String::from_utf8(bytes.to_vec())
            .map_err(|_| Error::new(ErrorCode::InvalidRequest, format!("{file} is not UTF-8")))?;
        texts.insert(file.clone(), text);
    }
    Ok(texts)
}

/// The scripted model of `demo` sessions.
pub(crate) async fn demo(engine: &Engine, spec: &SessionSpec) -> Result<Option<Demo>> {
    if !spec.demo {
        return Ok(None);
    }
    let Some(demo) = &engine.config.demo else {
        return Err(Error::new(
            ErrorCode::InvalidRequest,
            "this supervisor has no scripted model for `demo`",
        ));
    };
    let endpoint = demo.endpoint().await?;
    Ok(Some(Demo { base_url: endpoint.base_url, api_key: endpoint.api_key }))
}

impl Actor<'_> {
    pub(crate) fn place(&self) -> Place {
        Place::new(&self.engine.probe, self.id, &self.spec)
    }

    /// A path inside the session's own folder.
    fn own(&self, path: &str) -> At {
        At::home(format!("sessions/{}/{path}", self.id))
    }

    /// Waits for its turn, prepares, starts and joins. None: it is over before it began.
    pub(crate) async fn start(&mut self) -> Result<Option<ShimReader>> {
        let engine = self.engine;
        let admitted = loop {
            if self.commands.open.iter().any(|command| command.kind == super::commands::STOP) {
                break None;
            }
            let hub = self.hub.clone();
            tokio::select! {
                permit = engine.admission.acquire() => break permit.ok(),
                () = hub.poke.notified() => self.load_commands().await?,
            }
        };
        let Some(permit) = admitted else {
            self.ending = Some(Ending::never_started());
            self.finish().await?;
            return Ok(None);
        };
        self.permit = Some(permit);
        self.view.shift(Cause::Admitted, now(), &mut self.added);
        self.commit().await?;
        crate::failpoint::failpoint!("start.before");
        let started = match self.prepare().await {
            Ok(spec) => {
                // What confines it is known only here, and must be known to whoever finds it running.
                self.added.changed = true;
                self.commit().await?;
                crate::failpoint::failpoint!("start.prepared");
                engine.host.start(&self.run.dir, &spec).await.map_err(Error::from)
            }
            Err(error) => Err(error),
        };
        crate::failpoint::failpoint!("start.after");
        // An answer that was lost on the way says nothing about the run: who is there is asked.
        if let Err(error) = started
            && !engine.host.tree_state(&self.run.dir).await?.shim_alive
        {
            self.ending = Some(Ending::refused(error.problem()));
            self.finish().await?;
            return Ok(None);
        }
        self.rejoin().await
    }

    /// Makes everything that claude needs. Done again after a crash, it makes the same again.
    async fn prepare(&mut self) -> Result<StartSpec> {
        let engine = self.engine;
        let files = engine.host.files();
        let place = self.place();
        let cli = engine.provision.resolve(engine.host.as_ref(), None).await?;
        for dir in ["runs", "work", "home", "home/.local/bin", "home/.claude", "home/.castra"] {
            files.mkdir(self.own(dir), 0o700).await?;
        }
        files.symlink(self.own("home/.local/bin/claude"), cli.path.clone()).await?;
        let conversation = self.conversation(files, &place).await?;
        let mut launched = launch(
            &self.spec,
            &context(
                engine,
                &place,
                Around {
                    claude: cli.path.clone(),
                    conversation,
                    run_id: self.run.id,
                    demo: demo(engine, &self.spec).await?,
                    file_texts: file_texts(engine, &self.spec).await?,
                    own_server: self.own_server(),
                    remembered: self.view.remembered.clone(),
                },
            ),
        )?;
        self.put_files(files, &place, &launched).await?;
        self.first_run(files, &place, &launched.settled).await?;
        if let Some(task) = &self.view.coordination {
            let (at, folder) = (self.own("home/.castra/bin"), format!("{}/bin", place.files_dir));
            let log = task.log.as_ref().map(|log| format!("{}/{log}", place.work));
            crate::task::browser::plant(files, at, &folder, log.as_deref(), &mut launched.env).await?;
        }
        let (mut pty, mut tails) = (None, Vec::new());
        if self.spec.mode == Mode::Terminal {
            let only =
                (self.spec.home == Home::User).then(|| self.view.claude_session_id.into_iter().collect());
            // A newcomer's own home has none yet.
            files.mkdir(At::dir("/", place.config_dir.trim_start_matches('/')), 0o700).await?;
            tails = super::tty::rules(&place.config_dir, project_name(&place.project_dir), only);
            pty = Some(Pty { rows: DEFAULT_SIZE.rows, cols: DEFAULT_SIZE.cols });
        }
        if let Some(task) = &mut self.view.coordination {
            tails.extend(task.tail(&place.work, tails.len()));
        }
        let named = self.spec.workdir.as_ref().map(|_| &place.work);
        engine.still_there(named.into_iter().chain(&self.spec.add_dirs)).await?;
        let (decision, mut paths) = engine.confine(&self.spec, &place).await?;
        let argv = match &decision.wrap {
            Some(bwrap) => {
                fixed::fix(engine, &self.spec, &place, &mut paths).await?;
                paths.claude = cli.path.clone();
                paths.path = launched.env.get("PATH").cloned().unwrap_or_default();
                crate::sandbox::wrap(&launched.argv, bwrap, &paths)?
            }
            None => launched.argv,
        };
        self.view.sandbox = Some(decision.shown);
        self.view.claude_version = Some(cli.version);
        self.view.cwd = Some(place.work.clone());
        Ok(StartSpec {
            run_id: self.run.id.0,
            session_id: self.id.to_string(),
            run: u64::from(self.run.n),
            epoch: engine.epoch,
            argv,
            env: launched.env,
            cwd: place.work,
            wrapped: decision.wrap.is_some(),
            memory_bytes: self.spec.limits.memory_mb.map(|mb| mb << 20),
            segment_bytes: None,
            pty,
            files: tails,
        })
    }

    async fn put_files(&self, files: &dyn Files, place: &Place, launched: &Launch) -> Result<()> {
        for file in &launched.files {
            let at = match file.path.strip_prefix(&format!("{}/", place.session_dir)) {
                Some(path) => self.own(path),
                None => At::dir("/", file.path.trim_start_matches('/')),
            };
            crate::host::put(files, at, file.mode, false, file.bytes.clone().into()).await?;
        }
        let at = At::home(format!("{}.init", self.run.dir.0));
        crate::host::put(files, at, 0o600, false, launched.initialize.clone().into()).await?;
        Ok(())
    }

    /// The `initialize` line of this run, as it was prepared.
    pub(crate) async fn initialize_line(&self) -> Result<Vec<u8>> {
        let at = At::home(format!("{}.init", self.run.dir.0));
        Ok(whole(self.engine.host.files(), at).await?.to_vec())
    }

    /// Keeps claude's first-run screens away, in this run and for whoever opens this home later. A file of the user's
    /// own is never changed; where they have none yet, a terminal would not come to its prompt.
    async fn first_run(&self, files: &dyn Files, place: &Place, settled: &Settled) -> Result<()> {
        let at = match (self.spec.home, self.spec.mode) {
            (Home::Isolated, _) => At::dir(&place.config_dir, ".claude.json"),
            (Home::User, Mode::Terminal) => At::dir(&place.home, ".claude.json"),
            (Home::User, Mode::Stream) => return Ok(()),
        };
        let existing = match whole(files, at.clone()).await {
            Ok(_) if self.spec.home == Home::User => return Ok(()),
            Ok(bytes) => serde_json::from_slice::<Value>(&bytes).ok(),
            Err(Error::Host(error)) if is_missing(&error) => None,
            Err(error) => return Err(error),
        };
        let json = settled.claude_json(existing.clone());
        if existing.as_ref() != Some(&json) {
            crate::host::put(files, at, 0o600, false, json.to_string().into_bytes().into()).await?;
        }
        Ok(())
    }

    /// Whether the conversation begins, goes on, or branches off.
    async fn conversation(&mut self, files: &dyn Files, place: &Place) -> Result<Conversation> {
        let own = *self.view.claude_session_id.get_or_insert_with(Uuid::new_v4);
        let has = |id: Uuid| files.stat(At::dir(&place.project_dir, format!("{id}.jsonl")));
        let there = |found: Result<Option<_>, _>| match found {
            Ok(entry) => Ok(entry.is_some()),
            // Not even the folder.
            Err(error) if is_missing(&error) => Ok(false),
            Err(error) => Err(Error::from(error)),
        };
        if there(has(own).await)? {
            return Ok(Conversation::Resume(own));
        }
        match self.view.origin.clone() {
            Some(Origin::Fork { from, project_dir, .. }) => {
                bring_transcript(files, &project_dir, place, from).await?;
                Ok(Conversation::ResumeFork { from, to: own })
            }
            Some(Origin::Adopted { project_dir }) => {
                bring_transcript(files, &project_dir, place, own).await?;
                Ok(Conversation::Resume(own))
            }
            None => Ok(Conversation::New(own)),
        }
    }
}

impl Engine {
    /// Whether claude has something to go on from, when this session is resumed.
    pub(crate) async fn has_transcript(&self, row: &SessionRow, spec: &SessionSpec) -> Result<bool> {
        let Some(id) = crate::shown::view(row)?.claude_session_id else { return Ok(false) };
        let project_dir = Place::new(&self.probe, row.id, spec).project_dir;
        match self.host.files().stat(At::dir(project_dir, format!("{id}.jsonl"))).await {
            Ok(entry) => Ok(entry.is_some()),
            // Not even the folder.
            Err(error) if is_missing(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Copies a conversation's transcript, and what belongs to it, into this session's own home.
async fn bring_transcript(files: &dyn Files, from: &str, place: &Place, id: Uuid) -> Result<()> {
    if from == place.project_dir {
        return Ok(());
    }
    let to = &place.project_dir;
    files.mkdir(At::dir(&place.config_dir, format!("projects/{}", project_name(to))), 0o700).await?;
    let transcript = whole(files, At::dir(from, format!("{id}.jsonl"))).await?;
    crate::host::put(files, At::dir(to, format!("{id}.jsonl")), 0o600, false, transcript).await?;
    // Subagents and tool results, where there are any.
    let beside = At::dir(from, id.to_string());
    if files.stat(beside.clone()).await?.is_some() {
        let target = At::dir(to, id.to_string());
        files.remove(target.clone()).await?;
        files.copy_tree(beside, target).await?;
    }
    Ok(())
}

fn project_name(project_dir: &str) -> &str {
    project_dir.rsplit('/').next().unwrap_or(project_dir)
}

/// The longest file that is read as a whole: a transcript. Bytes.
const MAX_FILE: u64 = 1 << 30;

/// A whole file.
pub(crate) async fn whole(files: &dyn Files, at: At) -> Result<bytes::Bytes> {
    let path = at.path.clone();
    crate::host::get(files, at, MAX_FILE).await?.ok_or_else(|| {
        Error::new(ErrorCode::TooLarge, format!("{path} is larger than {} MiB", MAX_FILE >> 20))
    })
}

//! Inputs: fetched by the task's host into the session's own folder, checked there, and only then put where the agent
//! will find them. What is in its place is not fetched again after a crash; what was broken off goes on.

pub(crate) mod check;
mod curl;
mod exec;
mod git;

use super::driver::Driver;
use super::held::Held;
use super::protocol::text::Paths;
use super::reach::Unreachable;
use super::workspace::Workspace;
use crate::engine::Engine;
use crate::host::{HostError, put};
use crate::{Error, Result};
use bytes::Bytes;
use castra_proto::shim::relay::{At, EntryKind, RelayError};
use castra_proto::task::{Input, Level, Source, TaskEventKind};
use castra_proto::{ErrorCode, SessionId, TaskId, TaskSpec};
use castra_store::TaskError;
use serde_json::json;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Between two looks at what has arrived, and between two events that say so.
const LOOK: Duration = Duration::from_millis(500);
const SAY: Duration = Duration::from_secs(2);

/// Why an input could not be had. The task's reason.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    #[error("{0}")]
    Unreachable(#[from] Unreachable),
    #[error("{program} is not there: {why}")]
    NoProgram { program: &'static str, why: String },
    #[error("{program} failed: {said}")]
    Program { program: &'static str, said: String },
    #[error("it was answered {status}")]
    Status { status: u16 },
    #[error("it leads on to {to:?}, where nobody goes")]
    Redirect { to: String },
    #[error("it breaks off again and again: {said}")]
    BreaksOff { said: String },
    #[error("it is larger than {limit} bytes")]
    TooLarge { limit: u64 },
    #[error("its SHA-256 is {found}, and was to be {wanted}")]
    Sha256 { wanted: String, found: String },
    #[error("{path} is gone, or a link leads elsewhere now")]
    Moved { path: String },
    #[error("{path} is neither a file nor a folder")]
    NoFile { path: String },
    #[error("a link, or something else, stands in its way")]
    InTheWay,
    /// What the host or the store says.
    #[error("{}", .0.problem().detail)]
    Other(Box<Error>),
}

impl From<Error> for InputError {
    fn from(error: Error) -> Self {
        Self::Other(Box::new(error))
    }
}

impl From<HostError> for InputError {
    fn from(error: HostError) -> Self {
        match &error {
            // A link or a file where a folder was to be, and the other way round.
            HostError::Relay(RelayError::Outside { .. } | RelayError::BadPath { .. }) => Self::InTheWay,
            HostError::Relay(relay) if matches!(relay.errno(), Some(17 | 20 | 21 | 39)) => Self::InTheWay,
            _ => Self::Other(Box::new(error.into())),
        }
    }
}

/// How much of an input is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    bytes: u64,
    total: Option<u64>,
}

/// One input, where it is fetched to, and where it goes.
struct Fetch<'a> {
    driver: &'a Driver,
    engine: &'a Engine,
    workspace: &'a Workspace,
    /// Among whose children it may be named.
    parent: Option<TaskId>,
    input: &'a Input,
    /// Below `$CASTRA_HOME`: nobody but castra writes there.
    folder: String,
    n: usize,
    seen: watch::Sender<Seen>,
}

/// Fetches what is not there yet. An input that cannot be had is a refusal; the driver tries again what may be mended.
pub(super) async fn fetch(
    driver: &Driver,
    task: &mut Held,
    session: SessionId,
    workspace: &Workspace,
) -> Result<()> {
    let engine = &driver.supervisor.engine;
    let inputs = task.spec.inputs.clone();
    if inputs.is_empty() {
        return Ok(());
    }
    let folder = format!("sessions/{session}/inputs");
    engine.host.files().mkdir(At::home(folder.clone()), 0o700).await?;
    for (n, input) in inputs.iter().enumerate() {
        let seen = watch::Sender::default();
        let parent = task.spec.parent;
        let fetch = Fetch { driver, engine, workspace, parent, input, folder: folder.clone(), n, seen };
        if fetch.is_done().await? {
            continue;
        }
        let from = fetch.from();
        task.say(
            TaskEventKind::Progress,
            Level::Info,
            format!("fetching {} from {from}", input.path),
            json!({"input": input.path, "bytes": 0}),
        );
        task.commit(engine).await?;
        match follow(&fetch, task).await? {
            Ok(bytes) => {
                let size = bytes.map(|bytes| format!(", {bytes} bytes")).unwrap_or_default();
                let data = json!({"input": input.path, "bytes": bytes, "total": bytes});
                task.say(
                    TaskEventKind::Progress,
                    Level::Info,
                    format!("{} is there{size}", input.path),
                    data,
                );
                task.commit(engine).await?;
                fetch.set_done().await?;
            }
            Err(InputError::Other(error)) if !matches!(*error, Error::Refused(_)) => return Err(*error),
            Err(error) => {
                return Err(Error::with_hint(
                    ErrorCode::InvalidRequest,
                    format!("the input {:?} from {from} cannot be had: {error}", input.path),
                    "mend it, and `castra task retry ID`",
                ));
            }
        }
    }
    Ok(())
}

/// Says how far it is, until it is there or somebody wants something else of the task.
async fn follow(fetch: &Fetch<'_>, task: &mut Held) -> Result<Result<Option<u64>, InputError>> {
    let work = fetch.run();
    tokio::pin!(work);
    let mut tick = interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut said, mut at) = (Seen::default(), Instant::now());
    loop {
        tokio::select! {
            outcome = &mut work => return Ok(outcome),
            () = fetch.driver.driving.poke.notified() => {
                let head = fetch.engine.store.task(task.id).await?.map(|row| row.head);
                if head != Some(task.head()) {
                    // It is to be cancelled, perhaps: looked at anew. What has arrived stays.
                    return Err(TaskError::Moved(head.unwrap_or_default()).into());
                }
            }
            _ = tick.tick() => {
                fetch.look().await;
                let seen = *fetch.seen.borrow();
                if seen != said && at.elapsed() >= SAY {
                    (said, at) = (seen, Instant::now());
                    let path = &fetch.input.path;
                    let of = seen.total.map(|total| format!(" of {total}")).unwrap_or_default();
                    let data = json!({"input": path, "bytes": seen.bytes, "total": seen.total});
                    task.say(TaskEventKind::Progress, Level::Debug, format!("{path}: {}{of} bytes", seen.bytes), data);
                    task.commit(fetch.engine).await?;
                }
            }
        }
    }
}

impl Fetch<'_> {
    /// A file of its own beside the others; the kind of its content is its end.
    fn at(&self, end: &str) -> At {
        At::home(format!("{}/{}{end}", self.folder, self.n))
    }

    /// The same for programs of the host.
    fn path(&self, end: &str) -> String {
        format!("{}/{}/{}{end}", self.engine.probe.home, self.folder, self.n)
    }

    /// What is fetched, before it is checked.
    const PART: &'static str = ".part";

    /// For people; never more of a URL than its host.
    fn from(&self) -> String {
        let host = |url: &str| url::Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned));
        match &self.input.from {
            Source::File(path) => path.clone(),
            Source::Url(url) => host(url).unwrap_or_default(),
            Source::Git(git) => git.path.clone().or_else(|| host(git.url.as_deref()?)).unwrap_or_default(),
            Source::Blob(blob) => format!("task {}", blob.task),
        }
    }

    async fn is_done(&self) -> Result<bool> {
        let files = self.engine.host.files();
        Ok(files.stat(self.at(".done")).await?.is_some()
            && files.stat(self.workspace.input(&self.input.path)).await?.is_some())
    }

    async fn set_done(&self) -> Result<()> {
        Ok(self.engine.host.files().put(self.at(".done"), 0o600, false, Bytes::new()).await?)
    }

    /// How much there is of what a program writes.
    async fn look(&self) {
        if let Ok(Some(entry)) = self.engine.host.files().stat(self.at(Self::PART)).await
            && entry.kind == EntryKind::File
        {
            self.seen.send_if_modified(|seen| std::mem::replace(&mut seen.bytes, entry.size) != entry.size);
        }
    }

    /// Its size, where it is a file.
    async fn run(&self) -> Result<Option<u64>, InputError> {
        let files = self.engine.host.files();
        let mut mode = self.input.mode.clone();
        match &self.input.from {
            Source::File(path) => self.copy(path).await?,
            Source::Url(url) => {
                curl::fetch(self, url).await?;
                mode.get_or_insert_with(|| "644".into());
            }
            Source::Git(git) => {
                if git::fetch(self, git).await? == git::Where::InPlace {
                    return Ok(None);
                }
            }
            Source::Blob(blob) => {
                let sibling = self.parent.map(|parent| format!("{parent}/{}", blob.task));
                let supervisor = &self.driver.supervisor;
                let task = match sibling {
                    Some(sibling) if blob.task.parse::<TaskId>().is_err() => {
                        supervisor.resolve_task(&sibling).await?
                    }
                    _ => supervisor.resolve_task(&blob.task).await?,
                };
                let found = self.driver.supervisor.deliverable(task, &blob.path, blob.version).await?;
                put(files, self.at(Self::PART), 0o644, false, found.1).await?;
            }
        }
        let entry = files.stat(self.at(Self::PART)).await?;
        let Some(entry) = entry.filter(|entry| matches!(entry.kind, EntryKind::File | EntryKind::Dir)) else {
            return Err(InputError::NoFile { path: self.from() });
        };
        let is_file = entry.kind == EntryKind::File;
        if !is_file && (self.input.sha256.is_some() || self.input.mode.is_some()) {
            return Err(InputError::NoFile { path: format!("{} is a folder, which", self.from()) });
        }
        if let Some(wanted) = &self.input.sha256 {
            let found = exec::sha256(self.engine, &self.path(Self::PART)).await?;
            if found != *wanted {
                // Not to be gone on from.
                files.remove(self.at(Self::PART)).await?;
                return Err(InputError::Sha256 { wanted: wanted.clone(), found });
            }
        }
        if let Some(mode) = mode.filter(|_| is_file) {
            exec::chmod(self.engine, &mode, &self.path(Self::PART)).await?;
        }
        self.put_in_place().await?;
        Ok(is_file.then_some(entry.size))
    }

    /// A file or a folder of the host, which whoever made the task was allowed.
    async fn copy(&self, path: &str) -> Result<(), InputError> {
        if self.engine.real_path(path).await?.as_deref() != Some(path) {
            return Err(InputError::Moved { path: path.into() });
        }
        let files = self.engine.host.files();
        files.remove(self.at(Self::PART)).await?;
        Ok(files.copy_tree(At::dir("/", path.trim_start_matches('/')), self.at(Self::PART)).await?)
    }

    /// From castra's own folder to the agent's.
    async fn put_in_place(&self) -> Result<(), InputError> {
        let files = self.engine.host.files();
        let to = self.workspace.input(&self.input.path);
        let above = |at: &At| {
            let folder = at.path.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
            At { root: at.root.clone(), path: folder }
        };
        files.mkdir(above(&to), 0o700).await?;
        files.remove(to.clone()).await?;
        // By the same root: a folder of the user's own is not below castra's.
        let from = match &to.root {
            castra_proto::shim::relay::Root::Home => self.at(Self::PART),
            root => At { root: root.clone(), path: self.path(Self::PART).trim_start_matches('/').to_owned() },
        };
        match files.rename(from.clone(), to.clone(), false).await {
            // Another file system: EXDEV is told as this.
            Err(HostError::Relay(RelayError::Outside { .. })) => {}
            done => return Ok(done?),
        }
        files.copy_tree(from.clone(), to).await?;
        Ok(files.remove(from).await?)
    }
}

/// For the instructions: what was fetched.
pub(super) fn note(spec: &TaskSpec, paths: &Paths) -> Option<String> {
    let names: Vec<String> =
        spec.inputs.iter().map(|input| format!("- `{}{}`", paths.folder(), input.path)).collect();
    let intro = "These were fetched for you before you began:";
    (!names.is_empty()).then(|| format!("{intro}\n\n{}", names.join("\n")))
}

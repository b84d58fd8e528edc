//! What a supervisor is told once, when it opens. Where the values come from is the caller's business.

use crate::task::hooks::Post;
use crate::{Result, TaskLimits};
use castra_proto::task::{Definition, DefinitionFault};
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// The configuration of one supervisor.
#[derive(Clone)]
pub struct Config {
    /// `CASTRA_HOME`.
    pub home: PathBuf,
    pub claude: ClaudeConfig,
    /// Starts that may happen at once; the number of cores when unset.
    pub starts: Option<usize>,
    /// Messages that may wait in one session.
    pub max_queued: usize,
    pub retention: Retention,
    pub tasks: TaskLimits,
    /// The variables of the caller's environment that sessions may inherit; filtered by the allow-list.
    pub inherited: BTreeMap<String, String>,
    /// Folders, absolute, in which whoever has the scope `drive` only may name a `workdir`.
    pub workdirs: Vec<PathBuf>,
    /// HOME of the person, for `home: user`.
    pub user_home: Option<PathBuf>,
    /// Where `demo` sessions find their model; without one they are refused.
    pub demo: Option<Arc<dyn Demo>>,
    /// Where definitions of tasks are read from, beside those that are put.
    pub definitions: Option<Arc<dyn DefinitionFiles>>,
    /// Sends webhooks of tasks; without one they are refused.
    pub webhooks: Option<Arc<dyn Post>>,
    /// Shown in `Hello` and in `health`.
    pub build: String,
}

impl Config {
    pub fn new(home: impl Into<PathBuf>) -> Self {
        Self {
            home: home.into(),
            claude: ClaudeConfig::default(),
            starts: None,
            max_queued: 1000,
            retention: Retention::default(),
            tasks: TaskLimits::default(),
            inherited: BTreeMap::new(),
            workdirs: Vec::new(),
            user_home: None,
            demo: None,
            definitions: None,
            webhooks: None,
            build: env!("CARGO_PKG_VERSION").into(),
        }
    }
}

/// Which claude executable is used: configured path, `PATH`, `~/.local/bin`, castra's cache, installation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaudeConfig {
    pub path: Option<PathBuf>,
    /// A version to pin, e.g. `2.1.197`.
    pub version: Option<String>,
    pub install: Install,
    /// Where versions are installed; `$CASTRA_HOME/claude` when unset.
    pub install_dir: Option<PathBuf>,
    /// Let root run `bypassPermissions` (sets `IS_SANDBOX=1`, and says so).
    pub allow_root_bypass: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Install {
    #[default]
    Auto,
    Never,
}

/// What is kept of ended sessions; nothing unsaved is ever removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    pub max_age_s: Option<u64>,
    pub max_sessions: Option<u64>,
    pub max_bytes: Option<u64>,
}

/// A scripted model that outlives the daemon.
pub trait Demo: Send + Sync {
    fn endpoint(&self) -> BoxFuture<'_, Result<DemoEndpoint>>;
}

/// Files of definitions, read by whoever knows their formats.
pub trait DefinitionFiles: Send + Sync {
    /// As they are now. It may block: it is not called on the runtime's own threads.
    fn read(&self) -> ReadDefinitions;
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReadDefinitions {
    /// Each with its file; its name is set. Of two with one name the first counts.
    pub found: Vec<(String, Definition)>,
    pub faults: Vec<DefinitionFault>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DemoEndpoint {
    /// e.g. `http://127.0.0.1:40123`
    pub base_url: String,
    pub api_key: String,
}

//! From a [`SessionSpec`] to argv, environment and files. Refuses, with the reason, what cannot work.

mod refusal;

use castra_proto::{RunId, SessionSpec};
pub use refusal::Refusal;
use std::collections::BTreeMap;
use uuid::Uuid;

/// What the spec does not say: where things are, and who runs this.
#[derive(Clone, Debug)]
pub struct LaunchContext {
    /// Path of the CLI.
    pub claude: String,
    /// HOME for claude.
    pub home: String,
    pub config_dir: String,
    pub workdir: String,
    /// A 0700 folder inside the session's home for the files made here.
    pub files_dir: String,
    /// The caller's own environment; only what is on the allow-list is passed on.
    pub inherited: BTreeMap<String, String>,
    pub run_id: RunId,
    pub conversation: Conversation,
    pub is_root: bool,
    /// `[claude] allow_root_bypass`.
    pub allow_root_bypass: bool,
    /// The scripted model, for `demo`.
    pub demo: Option<Demo>,
    /// Contents of the files that the `*_file` fields name, by the name as it stands there.
    pub file_texts: BTreeMap<String, String>,
}

/// The conversation that claude starts or takes up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conversation {
    New(Uuid),
    Resume(Uuid),
    ResumeFork {
        from: Uuid,
        to: Uuid,
    },
    /// An absolute path of a transcript; claude goes on writing that file.
    ResumeFile(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demo {
    pub base_url: String,
    /// Made up; castra-model asks for none.
    pub api_key: String,
}

/// All that is needed to start claude.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// With the CLI as its first element. Never holds a secret.
    pub argv: Vec<String>,
    /// The whole environment, nothing is added.
    pub env: BTreeMap<String, String>,
    /// To be written before the start.
    pub files: Vec<LaunchFile>,
    /// The line that `initialize`s claude; its answer is the sign of readiness.
    pub initialize: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq)]
pub struct LaunchFile {
    /// Absolute.
    pub path: String,
    pub mode: u32,
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for LaunchFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LaunchFile({} {:o}, {} bytes)", self.path, self.mode, self.bytes.len())
    }
}

/// The `request_id` of the `initialize` in [`Launch::initialize`].
pub fn initialize_id(run: RunId) -> String {
    format!("castra-init-{run}")
}

/// What [`launch`] would refuse, without making anything.
pub fn check(spec: &SessionSpec, context: &LaunchContext) -> Result<(), Refusal> {
    launch(spec, context).map(drop)
}

pub fn launch(_spec: &SessionSpec, context: &LaunchContext) -> Result<Launch, Refusal> {
    Ok(Launch {
        argv: vec![context.claude.clone()],
        env: BTreeMap::new(),
        files: Vec::new(),
        initialize: Vec::new(),
    })
}

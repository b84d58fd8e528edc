//! A world for one test: folders under a short path, a scripted model, an environment without anything of the
//! caller's. When it goes, every process that it gave rise to goes with it.

use crate::command::{Castra, Output};
use crate::daemon::Daemon;
use crate::proc;
use crate::wait::{DEADLINE, wait_until};
use castra_model::{Model, RequestLog, Script};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Made up; the scripted model asks for none.
const KEY: &str = "sk-ant-api03-made-up-0000";

/// Fields are dropped in this order: the model's connections before the runtime, folders last.
pub struct World {
    castra: PathBuf,
    claude: Option<PathBuf>,
    model: Model,
    runtime: Runtime,
    root: TempDir,
    extra_env: Vec<(String, String)>,
}

impl World {
    /// `castra` is `env!("CARGO_BIN_EXE_castra")`, `claude` the CLI that sessions run, `script` what the model says
    /// (TOML, docs/model.md).
    ///
    /// # Panics
    /// On a mistake in the script.
    pub fn new(castra: &str, claude: impl AsRef<Path>, script: &str) -> Self {
        let mut world = Self::without_claude(castra, script);
        world.claude = Some(claude.as_ref().to_owned());
        world
    }

    /// A world in which nobody named a CLI.
    pub fn without_claude(castra: &str, script: &str) -> Self {
        let root = tempfile::Builder::new().prefix("ct-").tempdir_in("/tmp").expect("a folder in /tmp");
        for folder in ["home", "castra", "work"] {
            std::fs::create_dir(root.path().join(folder)).expect("a folder");
        }
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(root.path().join("castra"), private).expect("mode 0700");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let script = Script::parse(script).expect("a script");
        let model = runtime.block_on(Model::start(script, ([127, 0, 0, 1], 0).into())).expect("a model");
        Self { castra: castra.into(), claude: None, model, runtime, root, extra_env: Vec::new() }
    }

    /// A variable for the daemon and every command, e.g. `CASTRA_CLAUDE_INSTALL=never`.
    pub fn with_env(mut self, name: &str, value: &str) -> Self {
        self.extra_env.push((name.into(), value.into()));
        self
    }

    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// `CASTRA_HOME`.
    pub fn home(&self) -> PathBuf {
        self.root().join("castra")
    }

    /// HOME of the person that calls castra.
    pub fn user_home(&self) -> PathBuf {
        self.root().join("home")
    }

    /// The folder in which commands are called.
    pub fn folder(&self) -> PathBuf {
        self.root().join("work")
    }

    pub fn model(&self) -> &Model {
        &self.model
    }

    /// What claude asked the model, side calls left out.
    pub fn calls(&self) -> Vec<Arc<RequestLog>> {
        let calls = self.model.requests().into_iter();
        calls.filter(|entry| entry.is_messages_call() && entry.side.is_none()).collect()
    }

    /// The last thing that a user said in each of these.
    pub fn heard(&self) -> Vec<String> {
        self.calls().iter().filter_map(|call| call.last_user.clone()).collect()
    }

    /// How often something with these words was said: each request carries the whole conversation, and it is the last
    /// message of one.
    pub fn times_heard(&self, words: &str) -> usize {
        self.heard().iter().filter(|said| said.contains(words)).count()
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    pub(crate) fn program(&self) -> &Path {
        &self.castra
    }

    /// The whole environment of a command or daemon of this world.
    pub(crate) fn env(&self) -> Vec<(String, String)> {
        let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        let mut env = vec![
            ("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned()),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
            ("HOME".to_owned(), text(&self.user_home())),
            ("CASTRA_HOME".to_owned(), text(&self.home())),
        ];
        env.extend(self.claude.iter().map(|path| ("CASTRA_CLAUDE_PATH".to_owned(), text(path))));
        env.extend(self.extra_env.clone());
        env
    }

    /// What points a session at this world's model.
    pub fn model_env(&self) -> Vec<(&'static str, String)> {
        vec![
            ("ANTHROPIC_BASE_URL", self.model.base_url()),
            ("ANTHROPIC_API_KEY", KEY.to_owned()),
            ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1".to_owned()),
        ]
    }

    /// A SessionSpec that talks to this world's model, `fields` on top; `env` is merged.
    pub fn spec(&self, fields: Value) -> Value {
        let mut spec = json!({ "env": {} });
        for (name, value) in self.model_env() {
            spec["env"][name] = value.into();
        }
        let Value::Object(fields) = fields else { panic!("a spec is an object: {fields}") };
        for (name, value) in fields {
            match (name.as_str(), value) {
                ("env", Value::Object(more)) => {
                    more.into_iter().for_each(|(name, value)| spec["env"][name] = value);
                }
                (_, value) => spec[name] = value,
            }
        }
        spec
    }

    /// `--env NAME=VALUE` for `castra run`, to the same end.
    pub fn run_flags(&self) -> Vec<String> {
        let flag = |(name, value)| ["--env".to_owned(), format!("{name}={value}")];
        self.model_env().into_iter().flat_map(flag).collect()
    }

    /// A command to be changed before it runs.
    pub fn castra(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Castra {
        Castra::new(&self.castra, &self.env(), self.folder()).args(args)
    }

    /// A command, run to its end.
    pub fn cli(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Output {
        self.castra(args).run()
    }

    /// A daemon in the foreground, ready.
    pub fn daemon(&self) -> Daemon<'_> {
        Daemon::start(self)
    }

    /// Every process that has this world's folder in its arguments or environment.
    pub fn processes(&self) -> Vec<proc::Process> {
        proc::mentioning(self.root().to_str().expect("UTF-8"))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let shown = std::thread::panicking();
        for one in self.processes() {
            if shown {
                tell(&format!("still there: {} {}", one.pid, one.arguments()));
            }
            one.kill9();
        }
        if shown {
            for name in ["castra.log", "daemon.start"] {
                let log = std::fs::read_to_string(self.home().join("log").join(name)).unwrap_or_default();
                tell(&format!("--- {name}\n{log}"));
            }
            if std::env::var_os("CASTRA_TEST_KEEP").is_some() {
                tell(&format!("kept: {}", self.root().display()));
                self.root.disable_cleanup(true);
            }
            return;
        }
        // Whoever was about to fork when its parent was killed is found by looking again.
        let end_all = || {
            let left = self.processes();
            for one in &left {
                one.kill9();
            }
            left.is_empty()
        };
        wait_until("the world's processes to be gone", end_all, DEADLINE);
    }
}

fn tell(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{text}");
}

//! Settings and where each comes from: default, castra.toml, `CASTRA_*`, flag; later wins.
//! One table of keys serves the file, the environment, `castra config` and the supervisor.

use castra_supervisor::{ClaudeConfig, Install, Retention, TaskLimits};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use value::{limits, parse};

pub use value::{Kind, bytes, seconds};

mod value;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} is not valid TOML: {detail}")]
    Syntax { path: PathBuf, detail: String },
    #[error("{path}: unknown key `{key}`")]
    UnknownKey { path: PathBuf, key: String },
    #[error("{origin}: `{key}` must be {expected}, not `{found}`")]
    Invalid { origin: Source, key: &'static str, expected: String, found: String },
    #[error("there is no folder for castra's data: neither CASTRA_HOME, XDG_DATA_HOME nor HOME is set")]
    NoHome,
}

#[derive(Debug)]
pub struct Key {
    pub name: &'static str,
    pub kind: Kind,
    pub default: Option<&'static str>,
    pub about: &'static str,
}

const fn key(name: &'static str, kind: Kind, default: Option<&'static str>, about: &'static str) -> Key {
    Key { name, kind, default, about }
}

/// Every setting. `a.b` is key `b` of table `[a]`, and `CASTRA_A_B` in the environment.
pub const KEYS: &[Key] = &[
    key("home", Kind::Path, None, "castra's data; $XDG_DATA_HOME/castra when unset"),
    key("listen", Kind::Address, None, "also serve HTTP on this TCP address"),
    key("insecure_listen", Kind::Bool, Some("false"), "allow `listen` beyond loopback without TLS"),
    key("starts", Kind::Count, None, "sessions that may start at once; the number of cores when unset"),
    key("workdirs", Kind::Paths, None, "folders in which tokens with the scope `drive` may start sessions"),
    key(
        "tasks.running",
        Kind::Count,
        None,
        "tasks that may run at once; twice the number of cores, at least 4, when unset",
    ),
    key("tasks.hosts", Kind::Limits(&["local"]), None, "and of those on a host: `local 4`"),
    key(
        "tasks.labels",
        Kind::Limits(&[]),
        None,
        "and of those with a label: `team=blue 2`, or `user 1` for each user",
    ),
    key("tasks.definitions", Kind::Paths, None, "folders with definitions of tasks, beside HOME/tasks"),
    key("log.format", Kind::OneOf(&["text", "json"]), Some("text"), "the daemon's log"),
    key("log.level", Kind::Text, Some("info"), "a level, or filter directives of tracing"),
    key("attach.detach_key", Kind::Text, Some("C-\\"), "the key that leaves a terminal session, or none"),
    key("claude.path", Kind::Path, None, "the claude executable to use"),
    key("claude.version", Kind::Text, None, "a version to pin"),
    key("claude.install", Kind::OneOf(&["auto", "never"]), Some("auto"), "install claude when there is none"),
    key("claude.install_dir", Kind::Path, None, "where versions are installed; HOME/claude when unset"),
    key("claude.allow_root_bypass", Kind::Bool, Some("false"), "let root run bypassPermissions"),
    key("retention.max_age", Kind::Seconds, None, "drop ended sessions older than this"),
    key("retention.max_sessions", Kind::Count, None, "keep at most so many ended sessions"),
    key("retention.max_bytes", Kind::Bytes, None, "keep ended sessions within so much disk"),
];

impl Key {
    /// The variable that sets it.
    pub fn env(&self) -> String {
        format!("CASTRA_{}", self.name.replace('.', "_").to_uppercase())
    }
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Default,
    File(PathBuf),
    Env(String),
    Flag(&'static str),
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Env(name) => f.write_str(name),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    pub key: &'static str,
    /// Normalised: absolute paths, seconds, bytes. Null when unset.
    pub value: Value,
    pub source: Source,
}

/// A flag of the command line: key, the flag as it was written, value.
pub type FlagValue = (&'static str, &'static str, String);

/// What settings are made of; gathered by `Inputs::gather`, or by a test.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    pub env: BTreeMap<String, String>,
    pub cwd: PathBuf,
    /// `--config`.
    pub config: Option<PathBuf>,
    pub flags: Vec<FlagValue>,
}

impl Inputs {
    /// The process's own environment and folder. Variables that are not UTF-8 are left out.
    pub fn gather(config: Option<PathBuf>, flags: Vec<FlagValue>) -> Self {
        let env = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let cwd = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        Self { env, cwd, config, flags }
    }

    fn var(&self, name: &str) -> Option<&str> {
        self.env.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A file that was named must exist; the default one may be missing.
    fn file(&self) -> Option<(PathBuf, bool)> {
        if let Some(path) = &self.config {
            return Some((self.cwd.join(path), true));
        }
        if let Some(path) = self.var("CASTRA_CONFIG") {
            return Some((self.cwd.join(path), true));
        }
        let folder = match (self.var("XDG_CONFIG_HOME"), self.var("HOME")) {
            (Some(folder), _) => PathBuf::from(folder),
            (None, Some(home)) => Path::new(home).join(".config"),
            (None, None) => return None,
        };
        Some((folder.join("castra/castra.toml"), false))
    }

    fn default_home(&self) -> Result<PathBuf, Error> {
        match (self.var("XDG_DATA_HOME"), self.var("HOME")) {
            (Some(folder), _) => Ok(Path::new(folder).join("castra")),
            (None, Some(home)) => Ok(Path::new(home).join(".local/share/castra")),
            (None, None) => Err(Error::NoHome),
        }
    }
}

/// All settings, resolved.
#[derive(Clone, Debug)]
pub struct Settings {
    /// In the order of `KEYS`.
    pub all: Vec<Setting>,
    /// The file that was read.
    pub file: Option<PathBuf>,
    pub home: PathBuf,
    inputs: Inputs,
}

impl Settings {
    /// Reads the file, if there is one, and lays the layers over each other.
    ///
    /// # Errors
    /// A file that cannot be read or holds unknown keys, and values that do not fit their key.
    pub fn resolve(inputs: Inputs) -> Result<Self, Error> {
        let (file, table) = match inputs.file() {
            None => (None, toml::Table::new()),
            Some((path, named)) => match std::fs::read_to_string(&path) {
                Ok(text) => (Some(path.clone()), parse_file(&path, &text)?),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && !named => {
                    (None, toml::Table::new())
                }
                Err(source) => return Err(Error::Read { path, source }),
            },
        };
        let mut all = Vec::with_capacity(KEYS.len());
        for key in KEYS {
            all.push(layered(key, &inputs, file.as_deref(), &table)?);
        }
        let home = match all.iter().find(|setting| setting.key == "home").and_then(|s| s.value.as_str()) {
            Some(home) => PathBuf::from(home),
            None => inputs.default_home()?,
        };
        if let Some(setting) = all.iter_mut().find(|setting| setting.key == "home") {
            setting.value = json!(home);
        }
        Ok(Self { all, file, home, inputs })
    }

    /// Where `castra.toml` is, or would be.
    pub fn file_to_write(&self) -> Option<PathBuf> {
        self.inputs.file().map(|(path, _)| path)
    }

    fn get(&self, key: &str) -> &Value {
        self.all.iter().find(|setting| setting.key == key).map_or(&Value::Null, |setting| &setting.value)
    }

    fn path(&self, key: &str) -> Option<PathBuf> {
        self.get(key).as_str().map(PathBuf::from)
    }

    pub fn text(&self, key: &str) -> Option<String> {
        self.get(key).as_str().map(String::from)
    }

    fn limits(&self, key: &str) -> BTreeMap<String, usize> {
        self.text(key).as_deref().and_then(limits).unwrap_or_default()
    }

    pub fn listen(&self) -> Option<SocketAddr> {
        self.get("listen").as_str()?.parse().ok()
    }

    pub fn insecure_listen(&self) -> bool {
        self.get("insecure_listen") == true
    }

    pub fn log_is_json(&self) -> bool {
        self.get("log.format") == "json"
    }

    pub fn log_level(&self) -> String {
        self.text("log.level").unwrap_or_else(|| "info".into())
    }

    /// As it was written; parsed where keys are read.
    pub fn detach_key(&self) -> String {
        self.text("attach.detach_key").unwrap_or_default()
    }

    pub fn var(&self, name: &str) -> Option<&str> {
        self.inputs.var(name)
    }

    /// What a daemon in another folder must be told to arrive at the same settings: the paths that the
    /// environment or a flag gave relative to this one.
    pub fn absolute_env(&self) -> Vec<(String, String)> {
        let mut env = vec![("CASTRA_HOME".to_owned(), self.home.display().to_string())];
        if let Some(file) = &self.file {
            env.push(("CASTRA_CONFIG".into(), file.display().to_string()));
        }
        for (key, setting) in KEYS.iter().zip(&self.all) {
            let given = matches!(setting.source, Source::Env(_) | Source::Flag(_));
            if key.name != "home" && given {
                env.push((key.env(), plain(&setting.value)));
            }
        }
        env
    }

    /// The supervisor's view; without a demo model.
    pub fn supervisor(&self) -> castra_supervisor::Config {
        let mut config = castra_supervisor::Config::new(&self.home);
        config.claude = ClaudeConfig {
            path: self.path("claude.path"),
            version: self.text("claude.version"),
            install: if self.get("claude.install") == "never" { Install::Never } else { Install::Auto },
            install_dir: self.path("claude.install_dir"),
            allow_root_bypass: self.get("claude.allow_root_bypass") == true,
        };
        config.retention = Retention {
            max_age_s: self.get("retention.max_age").as_u64(),
            max_sessions: self.get("retention.max_sessions").as_u64(),
            max_bytes: self.get("retention.max_bytes").as_u64(),
        };
        config.tasks = TaskLimits {
            running: self.get("tasks.running").as_u64().and_then(|n| usize::try_from(n).ok()),
            hosts: self.limits("tasks.hosts"),
            labels: self.limits("tasks.labels"),
        };
        let workdirs = self.text("workdirs").unwrap_or_default();
        config.workdirs = workdirs.split(':').filter(|dir| !dir.is_empty()).map(PathBuf::from).collect();
        config.starts = self.get("starts").as_u64().and_then(|n| usize::try_from(n).ok());
        config.inherited = self.inputs.env.clone();
        config.user_home = self.var("HOME").map(PathBuf::from);
        config
    }
}

fn parse_file(path: &Path, text: &str) -> Result<toml::Table, Error> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| Error::Syntax {
        path: path.into(),
        detail: error.to_string().trim().replace('\n', " "),
    })?;
    let mut flat = toml::Table::new();
    for (name, value) in table {
        match value {
            // A table is a section only if the key is one's prefix; else it is an unknown key itself.
            toml::Value::Table(section) => {
                if !KEYS.iter().any(|key| key.name.starts_with(&format!("{name}."))) {
                    return Err(Error::UnknownKey { path: path.into(), key: name });
                }
                flat.extend(section.into_iter().map(|(inner, value)| (format!("{name}.{inner}"), value)));
            }
            value => {
                flat.insert(name, value);
            }
        }
    }
    match flat.keys().find(|name| !KEYS.iter().any(|key| key.name == name.as_str())) {
        Some(unknown) => Err(Error::UnknownKey { path: path.into(), key: unknown.clone() }),
        None => Ok(flat),
    }
}

fn layered(key: &Key, inputs: &Inputs, file: Option<&Path>, table: &toml::Table) -> Result<Setting, Error> {
    let (raw, source) = if let Some((_, flag, value)) = inputs.flags.iter().find(|flag| flag.0 == key.name) {
        (value.clone(), Source::Flag(flag))
    } else if let Some(value) = inputs.var(&key.env()) {
        (value.to_owned(), Source::Env(key.env()))
    } else if let (Some(value), Some(file)) = (table.get(key.name), file) {
        (toml_text(value), Source::File(file.into()))
    } else if let Some(default) = key.default {
        (default.to_owned(), Source::Default)
    } else {
        return Ok(Setting { key: key.name, value: Value::Null, source: Source::Default });
    };
    let relative_to = (!matches!(source, Source::File(_))).then_some(inputs.cwd.as_path());
    match parse(key.kind, &raw, relative_to, inputs.var("HOME")) {
        Ok(value) => Ok(Setting { key: key.name, value, source }),
        Err(expected) => Err(Error::Invalid { origin: source, key: key.name, expected, found: raw }),
    }
}

fn toml_text(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Array(items) if items.iter().all(toml::Value::is_str) => {
            items.iter().filter_map(toml::Value::as_str).collect::<Vec<_>>().join(":")
        }
        other => other.to_string(),
    }
}

/// A value as it is written in the environment.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), String::from)
}

#[cfg(test)]
mod tests;

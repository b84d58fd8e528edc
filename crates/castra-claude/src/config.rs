//! claude's configuration files, as values: what keeps its first-run screens away. Keeps what it does not know.

use serde_json::Value;

/// What `.claude.json` must say so that no first-run screen comes up.
#[derive(Clone, Debug, Default)]
pub struct FirstRun<'a> {
    /// Real paths of folders to trust.
    pub trusted: &'a [&'a str],
    /// API keys whose use is confirmed.
    pub api_keys: &'a [&'a str],
    pub bypass_accepted: bool,
}

/// Adds to a `.claude.json` (None: there is none yet) what `first_run` asks for.
pub fn claude_json(existing: Option<Value>, _first_run: &FirstRun<'_>) -> Value {
    existing.unwrap_or_default()
}

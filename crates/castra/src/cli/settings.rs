//! `castra config`: every setting, where it comes from, and the daemon that runs.

use super::Ctx;
use super::failure::Failure;
use crate::config::KEYS;
use crate::daemon::DaemonFile;
use serde_json::{Map, Value, json};

pub(super) fn config(ctx: Ctx) -> Result<(), Failure> {
    let settings = &ctx.settings;
    let daemon = DaemonFile::running(&settings.home);
    if ctx.out.json {
        let values: Map<String, Value> = settings
            .all
            .iter()
            .map(|one| (one.key.into(), json!({ "value": one.value, "source": one.source.to_string() })))
            .collect();
        return ctx.out.json(&json!({ "file": settings.file, "settings": values, "daemon": daemon }));
    }
    let rows: Vec<Vec<String>> = KEYS
        .iter()
        .zip(&settings.all)
        .map(|(key, one)| {
            let value = match &one.value {
                Value::Null => "-".into(),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            vec![key.name.into(), value, one.source.to_string(), key.about.into()]
        })
        .collect();
    ctx.out.table(&["KEY", "VALUE", "FROM", ""], &rows)?;
    match daemon {
        Some(file) => {
            let url = file.url.map_or_else(String::new, |url| format!(" and {url}"));
            ctx.out.line(&format!("\ndaemon: pid {} at {}{url}", file.process.pid, file.socket.display()))
        }
        None => ctx.out.line("\ndaemon: not running"),
    }
}

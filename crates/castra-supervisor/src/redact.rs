//! What of a spec is secret: split off to be stored encrypted, and shown as `***`. Pure.

use crate::task::hooks;
use crate::{Error, Result};
use castra_proto::{ErrorCode, SessionSpec, TaskSpec};
use serde_json::{Value, json};

pub(crate) const MASK: &str = "***";

/// The spec as it may be shown and stored in the clear, and the rest: values of `env`, `settings` and `agents`, and
/// of MCP servers all but their names, their kind, their program and their host.
pub(crate) fn split(spec: &SessionSpec) -> (SessionSpec, Option<Value>) {
    let mut shown = spec.clone();
    let mut secret = serde_json::Map::new();
    if !spec.env.is_empty() {
        secret.insert("env".into(), json!(spec.env));
        shown.env.values_mut().for_each(|value| *value = MASK.into());
    }
    for (name, field) in [("settings", &mut shown.settings), ("agents", &mut shown.agents)] {
        if let Some(value) = field {
            secret.insert(name.into(), value.clone());
            mask(value);
        }
    }
    if !spec.mcp_servers.is_empty() {
        secret.insert("mcp_servers".into(), json!(spec.mcp_servers));
        for server in shown.mcp_servers.values_mut() {
            for field in ["headers", "env", "args"] {
                if let Some(values) = server.get_mut(field) {
                    mask(values);
                }
            }
            if let Some(Value::String(url)) = server.get_mut("url") {
                *url = shown_url(url);
            }
        }
    }
    (shown, (!secret.is_empty()).then_some(Value::Object(secret)))
}

/// The same of a task: its session's, under `children` those of the tasks below it, in their order, and of a template
/// the `values` and `defaults` of parameters that stand in any of these places.
pub(crate) fn split_task(spec: &TaskSpec) -> (TaskSpec, Option<Value>) {
    let (session, mut secrets) = split(&spec.session);
    let hooks = hooks::split(&spec.hooks, &mut secrets);
    let (children, below): (Vec<_>, Vec<_>) = spec.children.iter().map(split_task).unzip();
    let mut shown = TaskSpec { session, hooks, children, ..spec.clone() };
    let hidden = hidden(spec, &shown);
    let (values, defaults) = mask_params(&mut shown, &hidden);
    let parts = [
        ("children", (!below.iter().all(Option::is_none)).then(|| json!(below))),
        ("values", (!values.is_empty()).then(|| values.into())),
        ("defaults", (!defaults.is_empty()).then(|| defaults.into())),
    ];
    for (name, part) in parts {
        if let Some(part) = part {
            secrets.get_or_insert_with(|| json!({}))[name] = part;
        }
    }
    (shown, secrets)
}

/// The parameters of a template that stand in what is secret.
pub(crate) fn secret_params(template: &TaskSpec) -> Vec<String> {
    hidden(template, &split_task(template).0)
}

/// Those with a place that is not seen any more in what is shown.
fn hidden(whole: &TaskSpec, shown: &TaskSpec) -> Vec<String> {
    if whole.params.is_empty() {
        return Vec::new();
    }
    let places = |spec: &TaskSpec| {
        let bare = TaskSpec { params: Default::default(), values: Default::default(), ..spec.clone() };
        serde_json::to_string(&bare).unwrap_or_default()
    };
    let (whole_text, shown_text) = (places(whole), places(shown));
    let is_hidden = |name: &&String| {
        let place = format!("{{{{{name}}}}}");
        whole_text.matches(&place).count() > shown_text.matches(&place).count()
    };
    whole.params.keys().filter(is_hidden).cloned().collect()
}

type Fields = serde_json::Map<String, Value>;

/// Their values and their defaults, which the spec does not show from now on.
pub(crate) fn mask_params(spec: &mut TaskSpec, names: &[String]) -> (Fields, Fields) {
    let (mut values, mut defaults) = (Fields::new(), Fields::new());
    for name in names {
        if let Some(value) = spec.values.get_mut(name) {
            values.insert(name.clone(), std::mem::replace(value, MASK.into()));
        }
        if let Some(default) = spec.params.get_mut(name).and_then(|param| param.default.as_mut()) {
            defaults.insert(name.clone(), std::mem::replace(default, MASK.into()));
        }
    }
    (values, defaults)
}

/// Of secrets that were split off: what is shown in a secret's place is none.
pub(crate) fn refuse_masked(secrets: Option<&Value>) -> Result<()> {
    if !secrets.is_some_and(is_masked) {
        return Ok(());
    }
    Err(Error::with_hint(
        ErrorCode::InvalidRequest,
        format!("a secret value is `{MASK}`, which is only shown in its place"),
        "write the value itself",
    ))
}

fn is_masked(secrets: &Value) -> bool {
    match secrets {
        Value::Object(fields) => fields.values().any(is_masked),
        Value::Array(items) => items.iter().any(is_masked),
        Value::String(text) => {
            let url = text.contains("://") && (text.ends_with("/***") || text.contains("://***@"));
            text == MASK || url
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The task as it was given.
pub(crate) fn restore_task(mut shown: TaskSpec, secrets: Option<Value>) -> Result<TaskSpec> {
    let Some(Value::Object(mut secrets)) = secrets else { return Ok(shown) };
    if let Some(Value::Array(below)) = secrets.remove("children") {
        let children = std::mem::take(&mut shown.children).into_iter();
        let each = children.zip(below).map(|(child, secrets)| restore_task(child, Some(secrets)));
        shown.children = each.collect::<Result<_>>()?;
    }
    if let Some(Value::Object(values)) = secrets.remove("values") {
        shown.values.extend(values);
    }
    if let Some(Value::Object(defaults)) = secrets.remove("defaults") {
        for (name, default) in defaults {
            if let Some(param) = shown.params.get_mut(&name) {
                param.default = Some(default);
            }
        }
    }
    let mut secrets = Some(secrets.into());
    hooks::restore(&mut shown, &mut secrets)?;
    let session = serde_json::to_string(&shown.session).map_err(damaged)?;
    shown.session = restore(&session, secrets)?;
    Ok(shown)
}

/// `https://user:password@host/path?query` as `https://***@host/***`: any of these is used as a secret.
pub(crate) fn shown_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return MASK.into() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (user, host) = match authority.rsplit_once('@') {
        Some((_, host)) => ("***@", host),
        None => ("", authority),
    };
    let path = if matches!(path, "" | "/") { path } else { "/***" };
    format!("{scheme}://{user}{host}{path}")
}

/// What of a URL is secret in a log: whoever is named in it, values of its query, and what of its path or fragment
/// is too long to be a word.
fn url_secrets(url: &str, out: &mut Vec<String>) {
    const LONG: usize = 20;
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if let Some((user, _)) = authority.rsplit_once('@') {
        out.extend(user.split(':').map(str::to_owned));
    }
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    out.extend(path.split(['/', '#']).filter(|part| part.len() >= LONG).map(str::to_owned));
    let (query, fragment) = query.split_once('#').unwrap_or((query, ""));
    out.extend(query.split('&').map(|pair| pair.split_once('=').map_or(pair, |(_, value)| value).to_owned()));
    out.extend((fragment.len() >= LONG).then(|| fragment.to_owned()));
}

/// Of an argument what a flag holds, or the whole of it.
fn argument_secret(argument: &str) -> Option<&str> {
    match argument.strip_prefix('-') {
        None => Some(argument),
        Some(flag) => flag.split_once('=').map(|(_, value)| value),
    }
}

/// The spec as it was given.
pub(crate) fn restore(shown: &str, secrets: Option<Value>) -> Result<SessionSpec> {
    let mut spec: Value = serde_json::from_str(shown).map_err(damaged)?;
    if let (Some(spec), Some(Value::Object(secrets))) = (spec.as_object_mut(), secrets) {
        spec.extend(secrets);
    }
    serde_json::from_value(spec).map_err(damaged)
}

fn damaged(error: serde_json::Error) -> Error {
    Error::new(ErrorCode::Internal, format!("a stored spec cannot be read: {error}"))
}

fn mask(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.values_mut().for_each(mask),
        Value::Array(items) => items.iter_mut().for_each(mask),
        Value::Null => {}
        leaf => *leaf = MASK.into(),
    }
}

/// The secret strings of a spec, for masking them in raw logs: those long enough to be one, as they are and as
/// JSON spells them. Of `settings` only the variables, of `agents` neither names nor tools: the rest are rules and
/// words that stand everywhere.
pub(crate) fn strings(spec: &SessionSpec) -> Vec<String> {
    let mut out: Vec<String> = spec.env.values().cloned().collect();
    for server in spec.mcp_servers.values() {
        server_secrets(server, &mut out);
    }
    let settings = spec.settings.as_ref().and_then(|settings| settings.get("env"));
    settings.iter().for_each(|env| leaves(env, &mut out));
    for agent in spec.agents.iter().filter_map(Value::as_object).flat_map(|agents| agents.values()) {
        for (name, value) in agent.as_object().into_iter().flatten() {
            match name.as_str() {
                "description" | "tools" | "disallowedTools" | "model" | "permissionMode" | "skills" => {}
                "mcpServers" => nested_servers(value, &mut out),
                _ => leaves(value, &mut out),
            }
        }
    }
    out.retain(|text| text.len() >= SHORTEST);
    let spelled = |text: &String| {
        let quoted = json!(text).to_string();
        quoted.get(1..quoted.len() - 1).map(str::to_owned)
    };
    let spelled: Vec<_> = out.iter().filter_map(spelled).filter(|spelled| !out.contains(spelled)).collect();
    out.extend(spelled);
    out
}

/// Bytes below which a string is too common to be masked wherever it stands.
const SHORTEST: usize = 8;

fn leaves(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Object(fields) => fields.values().for_each(|value| leaves(value, out)),
        Value::Array(items) => items.iter().for_each(|value| leaves(value, out)),
        Value::String(text) => out.push(text.clone()),
        _ => {}
    }
}

fn server_secrets(server: &Value, out: &mut Vec<String>) {
    for field in ["headers", "env"] {
        server.get(field).iter().for_each(|values| leaves(values, out));
    }
    if let Some(url) = server.get("url").and_then(Value::as_str) {
        url_secrets(url, out);
    }
    let arguments = server.get("args").and_then(Value::as_array).into_iter().flatten();
    out.extend(arguments.filter_map(Value::as_str).filter_map(argument_secret).map(str::to_owned));
}

/// An agent's own servers: a table, or a list of tables and names.
fn nested_servers(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| nested_servers(item, out)),
        Value::Object(servers) => servers.values().for_each(|server| server_secrets(server, out)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_known_as_json_spells_it_too() {
        let spec = SessionSpec {
            env: [("K".to_owned(), "line 1\nline \"2\"".to_owned())].into(),
            ..SessionSpec::default()
        };
        assert_eq!(strings(&spec), ["line 1\nline \"2\"", r#"line 1\nline \"2\""#]);
    }

    #[test]
    fn of_a_url_its_host_is_shown() {
        for (url, shown) in [
            ("http://x", "http://x"),
            ("http://x:1/", "http://x:1/"),
            ("http://u@x", "http://***@x"),
            ("http://u:p@q@x/a", "http://***@x/***"),
            ("https://x?k=v", "https://x/***"),
            ("https://x#f", "https://x/***"),
            ("no url at all", "***"),
        ] {
            assert_eq!(shown_url(url), shown);
        }
    }

    #[test]
    fn of_a_task_the_secrets_below_it_are_kept_too() {
        let task: TaskSpec = serde_json::from_value(json!({
            "session": {"env": {"A": "s3cret-1"}},
            "children": [
                {"instructions": "x"},
                {"hooks": [{"on": "after", "webhook": {"url": "https://x/s3cret-3", "secret": "s3cret-4"}}]},
                {"children": [{"session": {"settings": {"env": {"B": "s3cret-2"}}}}]},
            ],
        }))
        .unwrap();
        let (shown, secrets) = split_task(&task);
        let text = serde_json::to_string(&shown).unwrap();
        assert!(!text.contains("s3cret") && text.contains(MASK), "{text}");
        assert_eq!(restore_task(shown, secrets).unwrap(), task);
        let plain: TaskSpec = serde_json::from_value(json!({"children": [{}]})).unwrap();
        let (shown, secrets) = split_task(&plain);
        assert_eq!((restore_task(shown, None).unwrap(), secrets), (plain, None));
    }

    #[test]
    fn parameters_that_stand_in_secret_places_are_secret_with_their_defaults() {
        let template: TaskSpec = serde_json::from_value(json!({
            "instructions": "Write about {{what}} to {{host}}",
            "params": {
                "what": {"kind": "text", "required": true},
                "tok": {"kind": "text", "default": "s3cret-1"},
                "key": {"kind": "text"},
                "host": {"kind": "text"},
                "below": {"kind": "text"},
            },
            "values": {"what": "doors", "tok": "s3cret-2", "key": "s3cret-3", "host": "h", "below": "s3cret-4"},
            "session": {
                "env": {"TOKEN": "Bearer {{tok}}"},
                "mcp_servers": {"a": {"type": "http", "url": "https://{{host}}/mcp?key={{key}}"}},
            },
            "children": [{
                "instructions": "x",
                "params": {"own": {"kind": "text"}},
                "values": {"own": "{{below}}"},
                "hooks": [{"on": "after", "webhook": {"url": "https://x/", "secret": "{{own}}"}}],
            }],
        }))
        .unwrap();
        assert_eq!(secret_params(&template), ["below", "key", "tok"]);
        let (shown, secrets) = split_task(&template);
        let text = serde_json::to_string(&shown).unwrap();
        assert!(!text.contains("s3cret"), "{text}");
        let values: Vec<&str> = shown.values.values().filter_map(Value::as_str).collect();
        assert_eq!(values, [MASK, "h", MASK, MASK, "doors"]);
        assert_eq!(shown.children[0].values["own"], MASK);
        assert_eq!(restore_task(shown, secrets).unwrap(), template);
    }

    #[test]
    fn what_is_shown_in_a_secrets_place_is_known_when_it_comes_back() {
        for (secrets, masked) in [
            (json!({"env": {"TOKEN": "s3cret"}, "n": 1}), false),
            (json!({"env": {"STARS": "****", "TEXT": "say ***"}}), false),
            (json!({"env": {"A": "s3cret", "B": "***"}}), true),
            (json!({"mcp_servers": {"a": {"args": ["-y", "***"]}}}), true),
            (json!({"mcp_servers": {"a": {"url": "https://host/***"}}}), true),
            (json!({"hooks": [{"webhook": {"url": "https://***@host"}}]}), true),
        ] {
            assert_eq!(is_masked(&secrets), masked, "{secrets}");
        }
    }

    #[test]
    fn nothing_secret_is_shown_and_nothing_is_lost() {
        let spec: SessionSpec = serde_json::from_value(json!({
            "name": "n",
            "env": {"TOKEN": "s3cret-1"},
            "settings": {"env": {"X": "s3cret-2"}, "list": ["s3cret-3"], "n": 4},
            "mcp_servers": {
                "a": {"type": "http", "url": "http://x", "headers": {"Authorization": "s3cret-5"}},
                "b": {"type": "sse", "url": "https://u:s3cret-6@y:1/s3cret-in-a-longer-path?k=s3cret-7&z=1#f"},
                "c": {"command": "npx", "args": ["-y", "s3cret-8", "--key=s3cret-9", 1]},
            },
            "agents": {"one": {"description": "An agent", "prompt": "s3cret-10", "tools": ["WebSearch"],
                "mcpServers": ["a", {"d": {"command": "x", "args": ["--token", "s3cret-11"]}}]}},
        }))
        .unwrap();
        let (shown, secrets) = split(&spec);
        let text = serde_json::to_string(&shown).unwrap();
        assert!(!text.contains("s3cret"), "{text}");
        assert!(text.contains("http://x") && text.contains(r#""TOKEN":"***""#), "{text}");
        assert_eq!(restore(&text, secrets).unwrap(), spec);
        let of = |server: &str| shown.mcp_servers[server].clone();
        assert_eq!(of("b"), json!({"type": "sse", "url": "https://***@y:1/***"}));
        assert_eq!(of("c"), json!({"command": "npx", "args": ["***", "***", "***", "***"]}));
        assert_eq!(shown.agents.as_ref().unwrap()["one"]["mcpServers"][1]["d"]["command"], "***");
        let known = "s3cret-1 s3cret-5 s3cret-6 s3cret-in-a-longer-path s3cret-7 s3cret-8 s3cret-9 s3cret-2 s3cret-11 \
                     s3cret-10";
        assert_eq!(strings(&spec), known.split(' ').collect::<Vec<_>>());
    }
}

//! Hooks as they are asked for: what cannot work is refused, who may name one, and what of it is secret. Pure.

use super::sign::key;
use crate::redact::{MASK, shown_url};
use crate::supervisor::Caller;
use crate::task::protocol::Enabled;
use crate::task::reach::check_literal;
use crate::{Error, Result};
use castra_proto::api::Scope;
use castra_proto::task::{Hook, HookPoint, OnError, Webhook};
use castra_proto::{ErrorCode, TaskSpec};
use serde_json::{Value, json};
use std::time::Duration;
use url::Url;

/// Hooks of one task at most.
const MAX_HOOKS: usize = 32;
const MAX_RETRIES: u32 = 100;
const LONGEST: u64 = 3600;
const USUAL: u64 = 60;
/// Where nobody waits for the answer.
const PATIENT: u32 = 9;
/// Of the secrets of a task: those of its hooks.
const KEY: &str = "hooks";
/// Headers that are castra's to set, beside `webhook-…`.
const RESERVED: [&str; 8] =
    ["host", "content-length", "content-type", "transfer-encoding", "connection", "te", "trailer", "upgrade"];

/// Whether the task goes on only when it is through. The others are told of what has happened.
pub(crate) fn is_awaited(hook: &Hook) -> bool {
    match hook.on {
        HookPoint::Before | HookPoint::Deliverable | HookPoint::CallerMessage => true,
        HookPoint::After => hook.webhook.is_none(),
        HookPoint::Upload | HookPoint::Message | HookPoint::State => false,
    }
}

pub(crate) fn timeout(hook: &Hook) -> Duration {
    Duration::from_secs(hook.timeout_s.unwrap_or(USUAL))
}

pub(crate) fn retries(hook: &Hook) -> u32 {
    let patient = hook.webhook.is_some() && !is_awaited(hook);
    hook.retries.unwrap_or(if patient { PATIENT } else { 0 })
}

pub(crate) fn on_error(hook: &Hook) -> OnError {
    hook.on_error.unwrap_or(if hook.on == HookPoint::Before { OnError::Fail } else { OnError::Warn })
}

/// The places in the list of those that are told of events.
pub(crate) fn told(spec: &TaskSpec) -> Vec<u32> {
    let told = spec.hooks.iter().enumerate().filter(|(_, hook)| !is_awaited(hook));
    told.filter_map(|(at, _)| u32::try_from(at).ok()).collect()
}

/// The keywords that the task's agent has. `callback`: the program that embeds castra answers CALLER_MESSAGE.
pub(crate) fn enabled(spec: &TaskSpec, callback: bool) -> Enabled {
    let has = |point| spec.hooks.iter().any(|hook| hook.on == point);
    Enabled {
        caller_messages: callback || has(HookPoint::CallerMessage),
        client_messages: spec.client_id.is_some() || has(HookPoint::Message),
        browser: spec.protocol.has_log(),
    }
}

/// Refuses what cannot work, with the reason. `webhooks`: there is somebody who can send them.
pub(crate) fn check(hooks: &[Hook], webhooks: bool) -> Result<()> {
    if hooks.len() > MAX_HOOKS {
        return refuse(
            format!("there are {} hooks; at most {MAX_HOOKS} are taken", hooks.len()),
            "use fewer",
        );
    }
    for (at, hook) in hooks.iter().enumerate() {
        let name = format!("`hooks[{at}]` ({})", hook.on.as_str());
        match (&hook.command[..], &hook.webhook) {
            ([], None) | ([_, ..], Some(_)) => {
                return refuse(
                    format!("{name} must have one of `command` and `webhook`"),
                    "name one of them",
                );
            }
            ([], Some(webhook)) => {
                if !webhooks {
                    return refuse(format!("{name}: nobody here sends webhooks"), "give `Config::webhooks`");
                }
                check_webhook(&name, webhook)?;
            }
            ([program, ..], None) => check_program(&name, program)?,
        }
        if hook.timeout_s.is_some_and(|s| s == 0 || s > LONGEST) {
            return refuse(
                format!("{name}: `timeout_s` is not between 1 and {LONGEST}"),
                "leave it out for 60",
            );
        }
        if hook.retries.is_some_and(|n| n > MAX_RETRIES) {
            return refuse(format!("{name}: `retries` is above {MAX_RETRIES}"), "use fewer");
        }
        if !hook.states.is_empty() && hook.on != HookPoint::State {
            return refuse(format!("{name}: `states` belong to `on: state`"), "leave them out");
        }
        if hook.on_error == Some(OnError::Fail) && !is_awaited(hook) {
            return refuse(
                format!("{name}: the task does not wait for it, so it cannot fail by it"),
                "use `on_error: warn`",
            );
        }
    }
    Ok(())
}

/// A path below the folder that it is called in would be the agent's to write.
fn check_program(name: &str, program: &str) -> Result<()> {
    if program.is_empty() || (program.contains('/') && !program.starts_with('/')) {
        return refuse(
            format!("{name}: {program:?} would be looked for in the agent's folder"),
            "name the program by its absolute path, or by a name that is in PATH",
        );
    }
    Ok(())
}

fn check_webhook(name: &str, webhook: &Webhook) -> Result<()> {
    let url = address(&webhook.url).map_err(|why| {
        Error::with_hint(
            ErrorCode::InvalidRequest,
            format!("{name}: the URL {why}"),
            "write it as `https://host/path`",
        )
    })?;
    if let (Err(why), false) = (check_literal(&url), webhook.allow_private) {
        return refuse(
            format!("{name}: {why}"),
            "set `allow_private: true` (scope `admin`) if that is meant",
        );
    }
    for (header, value) in &webhook.headers {
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        let lower = header.to_ascii_lowercase();
        if header.is_empty() || !header.chars().all(token) {
            return refuse(
                format!("{name}: {header:?} is no name of a header"),
                "use letters, digits and `-`",
            );
        }
        if RESERVED.contains(&&*lower) || lower.starts_with("webhook-") {
            return refuse(format!("{name}: the header {header:?} is castra's to set"), "leave it out");
        }
        if !value.chars().all(|c| c == ' ' || c.is_ascii_graphic()) {
            return refuse(format!("{name}: the value of {header:?} cannot be sent"), "use ASCII characters");
        }
    }
    if webhook.secret.as_ref().is_some_and(|secret| key(secret).is_none()) {
        return refuse(
            format!("{name}: `secret` is empty, or no Base64 behind `whsec_`"),
            "`openssl rand -base64 32` makes one",
        );
    }
    Ok(())
}

/// A URL that can be posted to. The error says what is wrong, and never repeats it.
pub(super) fn address(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).map_err(|_| "cannot be read")?;
    match url.scheme() {
        "http" | "https" if url.has_host() => Ok(url),
        "http" | "https" => Err("names no host"),
        _ => Err("is neither http nor https"),
    }
}

/// A command runs as the daemon's user outside every sandbox. What any hook answers is told to the agent as castra's
/// own word.
pub(crate) fn check_scope(hooks: &[Hook], caller: &Caller) -> Result<()> {
    for hook in hooks {
        let (what, needed) = match &hook.webhook {
            None => ("a hook with a `command`, which runs outside every sandbox,", Scope::Admin),
            Some(webhook) if webhook.allow_private => ("a webhook with `allow_private`", Scope::Admin),
            Some(_) => ("a webhook", Scope::Approve),
        };
        if caller.scope < needed {
            return Err(Error::with_hint(
                ErrorCode::Forbidden,
                format!("{what} needs the scope `{}`", needed.as_str()),
                format!("leave it out, or use a token with the scope `{}`", needed.as_str()),
            ));
        }
    }
    Ok(())
}

/// The hooks as they may be shown, and their secrets beside those of the session.
pub(crate) fn split(hooks: &[Hook], secrets: &mut Option<Value>) -> Vec<Hook> {
    let mut shown = hooks.to_vec();
    let mut secret = false;
    for webhook in shown.iter_mut().filter_map(|hook| hook.webhook.as_mut()) {
        secret = true;
        webhook.url = shown_url(&webhook.url);
        webhook.headers.values_mut().for_each(|value| *value = MASK.into());
        webhook.secret = webhook.secret.take().map(|_| MASK.into());
    }
    if secret {
        secrets.get_or_insert_with(|| json!({}))[KEY] = json!(hooks);
    }
    shown
}

/// The hooks as they were asked for; what is left of the secrets is the session's.
pub(crate) fn restore(spec: &mut TaskSpec, secrets: &mut Option<Value>) -> Result<()> {
    let Some(hooks) = secrets.as_mut().and_then(Value::as_object_mut).and_then(|all| all.remove(KEY)) else {
        return Ok(());
    };
    spec.hooks = serde_json::from_value(hooks)
        .map_err(|error| Error::new(ErrorCode::Internal, format!("stored hooks cannot be read: {error}")))?;
    Ok(())
}

fn refuse<T>(detail: String, hint: &str) -> Result<T> {
    Err(Error::with_hint(ErrorCode::InvalidRequest, detail, hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hooks(value: Value) -> Vec<Hook> {
        serde_json::from_value(json!([value])).unwrap()
    }

    #[test]
    fn what_cannot_work_is_refused_with_the_reason() {
        for (hook, part) in [
            (json!({"on": "after"}), "one of `command` and `webhook`"),
            (json!({"on": "after", "command": ["x"], "webhook": {"url": "https://x"}}), "one of"),
            (json!({"on": "after", "command": ["./x"]}), "the agent's folder"),
            (json!({"on": "after", "command": ["bin/x"]}), "the agent's folder"),
            (json!({"on": "after", "command": [""]}), "the agent's folder"),
            (json!({"on": "after", "command": ["x"], "timeout_s": 0}), "timeout_s"),
            (json!({"on": "after", "command": ["x"], "states": ["done"]}), "`states` belong"),
            (json!({"on": "state", "command": ["x"], "on_error": "fail"}), "does not wait"),
            (json!({"on": "after", "webhook": {"url": "https://x"}, "on_error": "fail"}), "does not wait"),
            (json!({"on": "after", "webhook": {"url": "ftp://x"}}), "neither http nor https"),
            (json!({"on": "after", "webhook": {"url": "x"}}), "cannot be read"),
            (json!({"on": "after", "webhook": {"url": "http://127.0.0.1/x"}}), "not a public address"),
            (json!({"on": "after", "webhook": {"url": "http://2130706433/"}}), "not a public address"),
            (json!({"on": "after", "webhook": {"url": "http://[::ffff:10.0.0.1]/"}}), "not a public address"),
            (json!({"on": "after", "webhook": {"url": "http://LocalHost:80/"}}), "not a public address"),
            (json!({"on": "after", "webhook": {"url": "https://x", "headers": {"Host": "y"}}}), "castra's"),
            (
                json!({"on": "after", "webhook": {"url": "https://x", "headers": {"webhook-id": "y"}}}),
                "castra's",
            ),
            (json!({"on": "after", "webhook": {"url": "https://x", "headers": {"a b": "y"}}}), "no name"),
            (json!({"on": "after", "webhook": {"url": "https://x", "headers": {"a": "y\r\nb: c"}}}), "sent"),
            (json!({"on": "after", "webhook": {"url": "https://x", "secret": "whsec_?"}}), "secret"),
        ] {
            let problem = check(&hooks(hook.clone()), true).unwrap_err().problem();
            assert!(problem.detail.contains(part) && problem.hint.is_some(), "{hook}: {problem:?}");
        }
        for hook in [
            json!({"on": "before", "command": ["/usr/bin/env", "true"], "on_error": "fail"}),
            json!({"on": "state", "command": ["notify"], "states": ["done", "failed"], "retries": 3}),
            json!({"on": "deliverable", "webhook": {"url": "https://x.example/a?b", "secret": "s3cret"}}),
            json!({"on": "after", "webhook": {"url": "http://127.0.0.1:1/", "allow_private": true}}),
        ] {
            assert!(check(&hooks(hook.clone()), true).is_ok(), "{hook}");
        }
        let webhook = hooks(json!({"on": "after", "webhook": {"url": "https://x"}}));
        assert!(check(&webhook, false).is_err());
    }

    #[test]
    fn what_runs_outside_a_sandbox_is_for_admins() {
        for (hook, needed) in [
            (json!({"on": "after", "command": ["x"]}), Scope::Admin),
            (
                json!({"on": "after", "webhook": {"url": "http://10.0.0.1", "allow_private": true}}),
                Scope::Admin,
            ),
            (json!({"on": "after", "webhook": {"url": "https://x"}}), Scope::Approve),
        ] {
            for scope in Scope::ALL {
                let caller = Caller { by: "test".into(), scope };
                let allowed = check_scope(&hooks(hook.clone()), &caller);
                assert_eq!(allowed.is_ok(), scope >= needed, "{hook} {scope:?}");
            }
        }
    }

    #[test]
    fn nothing_secret_is_shown_and_nothing_is_lost() {
        let all: Vec<Hook> = serde_json::from_value(json!([
            {"on": "before", "command": ["x"]},
            {"on": "after", "webhook": {"url": "https://u:s3cret@x.example/s3cret?k=s3cret", "secret": "s3cret",
                "headers": {"Authorization": "Bearer s3cret"}}},
        ]))
        .unwrap();
        let mut secrets = Some(json!({"env": {"A": "b"}}));
        let shown = split(&all, &mut secrets);
        let text = json!(shown).to_string();
        assert!(!text.contains("s3cret") && text.contains("https://***@x.example/***"), "{text}");
        let mut spec = TaskSpec { hooks: shown, ..TaskSpec::default() };
        restore(&mut spec, &mut secrets).unwrap();
        assert_eq!((spec.hooks, secrets), (all, Some(json!({"env": {"A": "b"}}))));
        let mut none = None;
        split(&hooks(json!({"on": "before", "command": ["x"]})), &mut none);
        assert_eq!(none, None);
    }

    #[test]
    fn an_agent_has_the_words_that_somebody_hears() {
        let spec =
            |hooks: Value| TaskSpec { hooks: serde_json::from_value(hooks).unwrap(), ..TaskSpec::default() };
        let (none, caller, client) = (
            Enabled { browser: true, ..Enabled::default() },
            Enabled { browser: true, caller_messages: true, ..Enabled::default() },
            Enabled { browser: true, client_messages: true, ..Enabled::default() },
        );
        for (hooks, callback, expected) in [
            (json!([]), false, none),
            (json!([]), true, caller),
            (json!([{"on": "deliverable", "command": ["x"]}]), false, none),
            (json!([{"on": "caller_message", "command": ["x"]}]), false, caller),
            (json!([{"on": "message", "command": ["x"]}]), false, client),
        ] {
            assert_eq!(enabled(&spec(hooks.clone()), callback), expected, "{hooks} {callback}");
        }
        let addressed = TaskSpec { client_id: Some("browser-1".into()), ..TaskSpec::default() };
        assert_eq!(enabled(&addressed, false), client);
    }
}

//! What a team may be: what cannot work is refused before anything is made. Pure.

use super::flow;
use crate::supervisor::start::check_name;
use crate::{Error, Result};
use castra_proto::{ErrorCode, SessionSpec, TeamSpec};

/// Agents of one team. Each is a process.
const MOST_AGENTS: usize = 64;
/// Bytes of a conversation's key.
const LONGEST_KEY: usize = 255;

fn refuse(detail: impl Into<String>, hint: &str) -> Result<()> {
    Err(Error::with_hint(ErrorCode::InvalidRequest, detail, hint))
}

/// Refuses what cannot work, with the reason.
pub(crate) fn check(spec: &TeamSpec) -> Result<()> {
    if let Some(name) = &spec.name {
        check_name(name)?;
    }
    if spec.agents.is_empty() {
        return refuse("the team has no agents", "name one at least under `agents`");
    }
    if spec.agents.len() > MOST_AGENTS {
        return refuse(format!("the team has more than {MOST_AGENTS} agents"), "make several teams of it");
    }
    for (name, agent) in &spec.agents {
        if check_name(name).is_err() {
            return refuse(
                format!("{name:?} cannot be an agent's name"),
                "use 1 to 64 letters, digits, `.`, `_` or `-`, beginning with a letter or digit",
            );
        }
        check_session(name, &agent.session)?;
    }
    flow::check(spec).map_err(|fault| {
        Error::with_hint(ErrorCode::InvalidRequest, fault.to_string(), "docs/teams.md describes a flow")
    })
}

fn check_session(agent: &str, session: &SessionSpec) -> Result<()> {
    let own = [
        ("name", session.name.is_some()),
        ("resume", session.resume.is_some()),
        ("continue", session.continue_),
        ("fork_of", session.fork_of.is_some()),
        ("session_id", session.session_id.is_some()),
        ("ephemeral", session.ephemeral),
        ("ttl_s", session.ttl_s.is_some()),
    ];
    match own.iter().find(|(_, set)| *set) {
        None => Ok(()),
        Some((field, _)) => refuse(
            format!(
                "`agents.{agent}.session.{field}` is the team's own business: each conversation is a session of its own"
            ),
            "leave it out",
        ),
    }
}

/// The conversation that a key names; that without one is `""`.
pub(crate) fn conversation(key: Option<&str>) -> Result<&str> {
    let Some(key) = key else { return Ok("") };
    if key.is_empty() || key.len() > LONGEST_KEY || key.chars().any(char::is_control) {
        refuse(
            "this cannot be the key of a conversation",
            "use 1 to 255 bytes of text without control characters, or leave it out",
        )?;
    }
    Ok(key)
}

/// The agents that are named, each once.
pub(crate) fn named<'a>(spec: &TeamSpec, agents: impl IntoIterator<Item = &'a str>) -> Result<()> {
    let mut seen = std::collections::BTreeSet::new();
    for agent in agents {
        if !spec.agents.contains_key(agent) {
            return Err(no_agent(spec, agent));
        }
        if !seen.insert(agent) {
            return refuse(format!("agent {agent:?} is named twice"), "name each agent once");
        }
    }
    Ok(())
}

pub(crate) fn no_agent(spec: &TeamSpec, agent: &str) -> Error {
    let known: Vec<&str> = spec.agents.keys().map(String::as_str).collect();
    Error::with_hint(
        ErrorCode::NotFound,
        format!("the team has no agent {agent:?}"),
        format!("it has {}", known.join(", ")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn spec(value: Value) -> TeamSpec {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_cannot_work_is_refused_with_the_reason() {
        let many: serde_json::Map<_, _> = (0..65).map(|n| (format!("a{n}"), json!({}))).collect();
        for (team, part) in [
            (json!({}), "no agents"),
            (json!({"name": "a b", "agents": {"x": {}}}), "a b"),
            (json!({"agents": {"x y": {}}}), "\"x y\" cannot be an agent's name"),
            (json!({"agents": {"": {}}}), "cannot be an agent's name"),
            (json!({"agents": many}), "more than 64"),
            (json!({"agents": {"x": {"session": {"name": "n"}}}}), "agents.x.session.name"),
            (json!({"agents": {"x": {"session": {"continue": true}}}}), "agents.x.session.continue"),
            (json!({"agents": {"x": {}}, "flow": [{"ask": "y", "text": "t"}]}), "no agent \"y\""),
        ] {
            let problem = check(&spec(team.clone())).unwrap_err().problem();
            assert!(problem.detail.contains(part) && problem.hint.is_some(), "{team}: {problem:?}");
        }
        check(&spec(json!({"name": "t", "agents": {"x": {}, "y.2": {"session": {"model": "m"}}}}))).unwrap();
    }

    #[test]
    fn keys_and_names_are_checked() {
        let long = "k".repeat(256);
        for (key, good) in [
            (None, true),
            (Some("user 7/é"), true),
            (Some(""), false),
            (Some("a\nb"), false),
            (Some(long.as_str()), false),
        ] {
            assert_eq!(conversation(key).is_ok(), good, "{key:?}");
        }
        let team = spec(json!({"agents": {"x": {}, "y": {}}}));
        for (agents, part) in [(vec!["x", "z"], "no agent \"z\""), (vec!["x", "y", "x"], "named twice")] {
            let problem = named(&team, agents).unwrap_err().problem();
            assert!(problem.detail.contains(part), "{problem:?}");
        }
        named(&team, ["y", "x"]).unwrap();
    }
}

//! Teams and what their agents do, as people read them.

use crate::cli::escape::one_line;
use crate::cli::failure::Failure;
use crate::cli::out::Out;
use crate::cli::sessions::{ago, now};
use castra_proto::team::Conversation;
use castra_proto::{Team, Timestamp};
use serde_json::json;

/// What a person calls it.
pub(super) fn name(team: &Team) -> String {
    team.name.clone().unwrap_or_else(|| team.id.to_string())
}

pub(super) fn list(teams: &[Team], out: &Out) -> Result<(), Failure> {
    if out.json {
        return out.json(&json!({ "items": teams, "next": null }));
    }
    if teams.is_empty() {
        out.note("no teams; `castra team up FILE` makes one");
        return Ok(());
    }
    let now = now();
    let rows: Vec<Vec<String>> = teams
        .iter()
        .map(|team| {
            let busy = team.agents.values().filter(|agent| agent.busy).count();
            let agents: Vec<&str> = team.agents.keys().map(String::as_str).collect();
            vec![
                team.id.to_string(),
                one_line(team.name.as_deref().unwrap_or("-"), 24),
                ago(now.seconds_since(team.created_at)),
                busy.to_string(),
                one_line(&agents.join(", "), 60),
            ]
        })
        .collect();
    out.table(&["ID", "NAME", "AGE", "BUSY", "AGENTS"], &rows)
}

/// A row for each conversation.
pub(super) fn status(team: &Team, out: &Out) -> Result<(), Failure> {
    if out.json {
        return out.json(team);
    }
    let now = now();
    let rows: Vec<Vec<String>> = team
        .agents
        .iter()
        .flat_map(|(agent, shown)| {
            let mut rows: Vec<_> = shown.conversations.iter().map(|one| row(agent, one, now)).collect();
            if rows.is_empty() {
                rows.push([agent.as_str(), "-", "not begun", "-", "-", "-", ""].map(String::from).to_vec());
            }
            rows
        })
        .collect();
    out.table(&["AGENT", "KEY", "STATE", "SINCE", "TURN", "LAST", "OUTPUT"], &rows)
}

fn row(agent: &str, one: &Conversation, now: Timestamp) -> Vec<String> {
    let state = match (one.state, one.pending) {
        (None, _) => "not begun".into(),
        (Some(state), 0) => state.to_string(),
        (Some(state), pending) => format!("{state} ({pending})"),
    };
    let took = one.turn.duration_s.filter(|_| one.turn.n > 0);
    let activity = one.last_activity.as_ref();
    let last = activity.filter(|_| one.busy).map(|activity| activity.text.as_str());
    vec![
        agent.to_owned(),
        one_line(one.key.as_deref().unwrap_or("-"), 24),
        state,
        one.since.map_or_else(|| "-".into(), |since| ago(now.seconds_since(since))),
        took.map_or_else(|| "-".into(), |took| format!("{} in {took:.1}s", one.turn.n)),
        activity.map_or_else(|| "-".into(), |activity| ago(now.seconds_since(activity.at))),
        one_line(last.or(one.last_output.as_deref()).unwrap_or_default(), 60),
    ]
}

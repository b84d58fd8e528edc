//! A session as it is shown, put together from its row and its derived state. Pure.

use crate::session::view::View;
use crate::{Error, Result};
use castra_proto::permission::PermissionState;
use castra_proto::session::Turn;
use castra_proto::{ErrorCode, Session, SessionSpec, Timestamp};
use castra_store::{CommandRow, SessionRow};
use serde_json::{Value, json};

pub(crate) fn view(row: &SessionRow) -> Result<View> {
    View::parse(&row.view, &row.offers).map_err(|error| {
        Error::new(
            ErrorCode::Internal,
            format!("the stored state of session {} cannot be read: {error}", row.id),
        )
    })
}

/// `decided`: permission answers that are on disk and not yet with claude.
pub(crate) fn session(
    row: SessionRow,
    waiting: usize,
    decided: &[CommandRow],
    now: Timestamp,
) -> Result<Session> {
    let mut view = view(&row)?;
    let spec: SessionSpec = serde_json::from_str(&row.spec).map_err(|error| {
        Error::new(
            ErrorCode::Internal,
            format!("the stored spec of session {} cannot be read: {error}", row.id),
        )
    })?;
    for pending in &mut view.pending {
        if decided.iter().any(|command| command.subject.as_ref() == Some(&pending.request_id)) {
            pending.state = PermissionState::Decided;
        }
    }
    let end = view.turn.ended_at.unwrap_or(now);
    Ok(Session {
        id: row.id,
        name: row.name,
        state: row.state,
        flags: view.flags.clone(),
        busy: view.busy(),
        since: view.since,
        created_at: row.created_at,
        run: row.newest_run,
        turn: Turn {
            n: view.turn.n,
            started_at: view.turn.started_at,
            duration_s: view.turn.started_at.map(|start| end.seconds_since(start).max(0.0)),
        },
        sandbox: view.sandbox(),
        cost_usd: view.cost_usd(),
        permission_mode: view.permission_mode.unwrap_or_else(|| spec.permission_mode.as_str().into()),
        model: view.model.or_else(|| spec.model.clone()),
        effort: view.effort.or_else(|| spec.effort.clone()),
        last_activity: view.last_activity,
        queued: u32::try_from(waiting).unwrap_or(u32::MAX),
        pending: view.pending,
        claude_session_id: view.claude_session_id,
        claude_session_ids: view.claude_session_ids,
        pid: view.pid,
        shim_pid: view.shim_pid,
        cwd: row.cwd,
        host: row.host,
        tools: view.offers.tools,
        slash_commands: view.offers.slash_commands,
        skills: view.offers.skills,
        agents: view.offers.agents,
        mcp_servers: view.offers.mcp_servers,
        turns: view.results,
        usage: view.usage,
        exit: view.exit,
        claude_version: view.claude_version,
        head_seq: row.head,
        spec,
    })
}

/// What the server-wide sequence says about a session.
pub(crate) fn brief(view: &View) -> Value {
    json!({
        "state": view.state,
        "run": view.run,
        "busy": view.busy(),
        "pending": view.pending.len(),
        "flags": view.flags,
        "cost_usd": view.cost_usd(),
    })
}

//! Control requests: any that the allow-list knows, and live changes made of them.

use super::{Caller, Supervisor};
use crate::engine::now;
use crate::session::commands::CONTROL;
use crate::{Error, Result, shown};
use castra_claude::control::control_scope;
use castra_proto::api::{Control, ControlAnswer, Scope, SessionPatch};
use castra_proto::spec::PermissionMode;
use castra_proto::{ErrorCode, SessionId};
use castra_store::{Change, Commit, Guard, SessionUpdate};
use serde_json::{Value, json};
use std::time::Duration;

/// claude answers control requests in a millisecond; those that reconnect MCP servers take longer.
const PATCH_TIMEOUT: Duration = Duration::from_secs(30);

impl Supervisor {
    /// Any control request of the CLI that the allow-list knows and the caller's scope allows.
    pub async fn control(
        &self,
        id: SessionId,
        control: Control,
        caller: &Caller,
        timeout: Duration,
    ) -> Result<ControlAnswer> {
        let Some(scope) = control_scope(&control.subtype, &control.fields) else {
            return Err(Error::with_hint(
                ErrorCode::InvalidRequest,
                format!("the control request {:?} is not passed on", control.subtype),
                "docs/protocol.md lists those that are",
            ));
        };
        if caller.scope < scope {
            return Err(Error::new(
                ErrorCode::Forbidden,
                format!("{:?} needs the scope `{}`", control.subtype, scope.as_str()),
            ));
        }
        // claude takes any mode and says success.
        if control.subtype == "set_permission_mode" {
            let mode = control.fields.get("mode").and_then(Value::as_str).unwrap_or_default();
            if PermissionMode::parse(mode).is_none() {
                return Err(unknown_mode(mode));
            }
        }
        let row = self.row(id).await?;
        if row.state.is_final() {
            return Err(Error::over(row.state));
        }
        let mut args = control.fields;
        args.insert("subtype".into(), control.subtype.into());
        let answered = self.command(id, CONTROL, None, Value::Object(args), caller, true);
        match tokio::time::timeout(timeout, answered).await {
            Ok(answer) => {
                let answer = answer?.unwrap_or_default();
                serde_json::from_value(answer).map_err(|error| {
                    Error::new(ErrorCode::Internal, format!("claude's answer cannot be read: {error}"))
                })
            }
            Err(_) => Err(Error::with_hint(
                ErrorCode::Timeout,
                "claude did not answer in time",
                "the request stands; its answer will be an event of the session",
            )),
        }
    }
}

pub(super) async fn patch(
    supervisor: &Supervisor,
    id: SessionId,
    patch: SessionPatch,
    caller: &Caller,
) -> Result<()> {
    let row = supervisor.row(id).await?;
    if patch.name.is_some() || patch.labels.is_some() || patch.metadata.is_some() {
        let mut spec: Value = serde_json::from_str(&row.spec).map_err(|error| {
            Error::new(ErrorCode::Internal, format!("a stored spec cannot be read: {error}"))
        })?;
        for (field, value) in [
            ("name", patch.name.as_ref().map(|name| json!(name))),
            ("labels", patch.labels.as_ref().map(|labels| json!(labels))),
            ("metadata", patch.metadata.clone()),
        ] {
            if let Some(value) = value {
                spec[field] = value;
            }
        }
        let mut commit = Commit::new(id, now()).change(Change::Session(SessionUpdate {
            name: patch.name.clone().map(Some),
            labels: patch.labels.clone(),
            spec: Some(spec.to_string()),
            ..SessionUpdate::default()
        }));
        if let Some(name) = patch.name.filter(|name| row.name.as_ref() != Some(name)) {
            super::start::check_name(&name)?;
            commit = commit.guard(Guard::NameFree(name));
        }
        commit = commit.server_event("session_state", shown::brief(&shown::view(&row)?));
        supervisor.engine.store.commit(commit).await?;
    }
    let mut asks = Vec::new();
    if let Some(model) = patch.model {
        asks.push(json!({"subtype": "set_model", "model": model}));
    }
    if let Some(mode) = patch.permission_mode {
        asks.push(json!({"subtype": "set_permission_mode", "mode": mode}));
    }
    if let Some(effort) = patch.effort {
        asks.push(json!({"subtype": "apply_flag_settings", "settings": {"effortLevel": effort}}));
    }
    for ask in asks {
        let control: Control = serde_json::from_value(ask)
            .map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))?;
        let subtype = control.subtype.clone();
        // Who may change a mode is decided here, by the allow-list, as for any control request.
        let caller = Caller { by: caller.by.clone(), scope: caller.scope.max(Scope::Drive) };
        let answer = supervisor.control(id, control, &caller, PATCH_TIMEOUT).await?;
        if !answer.ok {
            return Err(Error::new(
                ErrorCode::InvalidRequest,
                format!("claude refused {subtype}: {}", answer.error.unwrap_or_default()),
            ));
        }
    }
    Ok(())
}

fn unknown_mode(mode: &str) -> Error {
    let known: Vec<_> = PermissionMode::ALL.iter().map(|mode| mode.as_str()).collect();
    Error::with_hint(
        ErrorCode::InvalidRequest,
        format!("there is no permission mode {mode:?}"),
        format!("one of: {}", known.join(", ")),
    )
}

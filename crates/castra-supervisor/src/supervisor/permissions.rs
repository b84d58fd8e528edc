//! Permission requests: what waits, and the one decision that counts.

use super::{Caller, Supervisor};
use crate::engine::{Engine, now};
use crate::session::commands::PERMISSION;
use crate::session::view::View;
use crate::{Error, Result, shown};
use castra_claude::terminal::answer::{answer as by_keys, is_unknown_screen};
use castra_claude::terminal::screen::Screen;
use castra_proto::permission::{PermissionAnswer, PermissionRequest, PermissionState};
use castra_proto::spec::Mode;
use castra_proto::{CommandId, ErrorCode, OwnKind, SessionId};
use castra_store::{Change, CommandState, Commit, NewCommand};
use serde_json::json;
use std::sync::Arc;

impl Supervisor {
    pub async fn permissions(&self, id: SessionId) -> Result<Vec<PermissionRequest>> {
        Ok(self.show(id).await?.pending)
    }

    /// The decision is on disk when this returns.
    ///
    /// Errors: `permission_gone` when it was answered or withdrawn, `input_changed` when the answer is to
    /// another input than the one that waits.
    pub async fn answer(
        &self,
        id: SessionId,
        request_id: &str,
        answer: PermissionAnswer,
        caller: &Caller,
    ) -> Result<PermissionRequest> {
        let row = self.row(id).await?;
        let view = shown::view(&row)?;
        let Some(mut pending) = view.pending.iter().find(|pending| pending.request_id == request_id).cloned()
        else {
            return Err(Error::with_hint(
                ErrorCode::PermissionGone,
                format!("no permission request {request_id:?} is waiting"),
                "`castra permissions ID` lists what waits",
            ));
        };
        if let Some(hash) = &answer.input_hash
            && *hash != pending.input_hash
        {
            return Err(Error::with_hint(
                ErrorCode::InputChanged,
                "the answer is to another input than the one that is waiting",
                "look at the request again and answer that",
            ));
        }
        if row.mode == Mode::Terminal {
            self.check_keys(id, &pending, &answer).await?;
        }
        decide(&self.engine, id, request_id, &answer, &caller.by, &view).await?;
        crate::failpoint::failpoint!("answer.after");
        self.engine.drive(id);
        pending.state = PermissionState::Decided;
        Ok(pending)
    }
}

impl Supervisor {
    /// An answer that no key gives is refused before it counts.
    async fn check_keys(
        &self,
        id: SessionId,
        pending: &PermissionRequest,
        answer: &PermissionAnswer,
    ) -> Result<()> {
        let refuse = |detail: String| {
            let hint = format!("`castra attach {id}` shows it, or `castra screen` and `castra type`");
            Err(Error::with_hint(ErrorCode::InvalidRequest, detail, hint))
        };
        if is_unknown_screen(pending) {
            return refuse("castra presses no key into a screen that it does not know".into());
        }
        let shown = self.engine.hub(id).await?.screen.look();
        match shown {
            Screen::Dialog(dialog) => {
                by_keys(&dialog, answer).map(drop).or_else(|error| refuse(error.to_string()))
            }
            _ => Ok(()),
        }
    }
}

/// Writes the decision down: whoever comes first, once.
pub(crate) async fn decide(
    engine: &Arc<Engine>,
    id: SessionId,
    request_id: &str,
    answer: &PermissionAnswer,
    by: &str,
    view: &View,
) -> Result<()> {
    let said = view.event(
        now(),
        OwnKind::PermissionAnswered,
        &json!({"request_id": request_id, "by": by, "answer": answer, "state": "decided"}),
    );
    let commit = Commit::new(id, now())
        .change(Change::AddCommand(NewCommand {
            id: CommandId::now(),
            kind: PERMISSION.into(),
            subject: Some(request_id.into()),
            args: json!(answer),
            by: by.into(),
            state: CommandState::Accepted,
            owner: Some(engine.owner.clone()),
            epoch: Some(engine.epoch),
        }))
        .event(said);
    engine.store.commit(commit).await?;
    Ok(())
}

//! An attempt that goes on in a session that was over: what it goes on from is on disk before anything is changed there,
//! so that its agent is told the same whoever comes to tell it.

use super::held::Held;
use super::protocol::notice;
use super::workspace::{Found, Workspace};
use crate::Result;
use crate::engine::Engine;
use castra_store::SessionRow;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GoesOn {
    /// Something of the conversation is left.
    remembers: bool,
    pub found: Found,
}

/// `session`: the one that was over, if it is still known. `instructions`: those of now.
pub(super) async fn decide(
    engine: &Engine,
    task: &mut Held,
    session: Option<&SessionRow>,
    workspace: &Workspace,
    instructions: &str,
) -> Result<GoesOn> {
    let found = workspace.found(engine.host.files(), instructions).await?;
    let goes_on = match task.view.goes_on {
        // A crash came between; the instructions may have changed once more.
        Some(before) => GoesOn { found: before.found.and(found), ..before },
        None => {
            let remembers = match session {
                Some(row) => engine.has_transcript(row, &task.spec.session).await?,
                None => false,
            };
            GoesOn { remembers, found }
        }
    };
    if task.view.goes_on != Some(goes_on) {
        task.view.goes_on = Some(goes_on);
        task.commit(engine).await?;
    }
    Ok(goes_on)
}

/// What its agent is told first.
pub(super) fn told(task: &Held, workspace: &Workspace) -> String {
    let (nonce, place) = (task.view.nonce.as_str(), workspace.place());
    match task.view.goes_on {
        // Nothing of the conversation is left that could go on: it is told what to do as at first.
        Some(GoesOn { remembers: false, .. }) => notice::kickoff(nonce, place),
        goes_on => {
            let is_other = goes_on.is_some_and(|goes_on| goes_on.found.is_other);
            notice::resumed(nonce, is_other, place, &workspace.paths())
        }
    }
}

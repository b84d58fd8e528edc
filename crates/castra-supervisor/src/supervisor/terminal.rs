//! Terminals: looked at, sat down at, typed into. Refuses sessions that have none.

use super::Supervisor;
use crate::host::RunDir;
use crate::session::hub::Hub;
use crate::session::screen::{Picture, TypeError, View};
use crate::session::tty::last_screen;
use crate::terminal::Role;
use crate::{Error, Result};
use bytes::Bytes;
use castra_claude::terminal::keys;
use castra_proto::spec::Mode;
use castra_proto::{ErrorCode, SessionId};
use std::sync::Arc;

impl Supervisor {
    /// Takes a seat at a session's terminal. Errors: `invalid_request` for a session in stream mode.
    pub async fn terminal(&self, id: SessionId, role: Role) -> Result<View> {
        Ok(self.hub_of_terminal(id).await?.screen.join(role))
    }

    /// The screen now. Errors: `invalid_request` for a session in stream mode, `conflict` before the first run has
    /// shown anything to this server.
    pub async fn screen(&self, id: SessionId) -> Result<Picture> {
        self.hub_of_terminal(id).await?.screen.picture().ok_or_else(no_screen)
    }

    /// Types keys by name, and other words as they are. Errors: `invalid_request` for a word that looks like a key
    /// and is none, `conflict` when there is no terminal now, `overloaded` when claude does not read.
    pub async fn type_keys(&self, id: SessionId, words: &[String]) -> Result<()> {
        let hub = self.hub_of_terminal(id).await?;
        let modes =
            hub.screen.with(|terminal| keys::Modes { application_cursor: terminal.modes().is_set(1) });
        let words = words.iter().map(String::as_str);
        let bytes = keys::keys(words, modes.unwrap_or_default())
            .map_err(|error| Error::new(ErrorCode::InvalidRequest, error.to_string()))?;
        hub.screen.type_bytes(Bytes::from(bytes)).map_err(refused)
    }

    /// The hub of a session on a terminal, with its last screen if its runs were over before this server began.
    async fn hub_of_terminal(&self, id: SessionId) -> Result<Arc<Hub>> {
        let row = self.row(id).await?;
        match row.mode {
            Mode::Terminal => {
                let hub = self.engine.hub(id).await?;
                if row.state.is_final()
                    && hub.screen.is_blank()
                    && let Some(run) = self.engine.store.run(id, row.newest_run).await?
                    && let Some(terminal) = last_screen(&self.engine, &RunDir(run.dir)).await
                {
                    hub.screen.recall(run.id, terminal);
                }
                Ok(hub)
            }
            Mode::Stream => Err(Error::with_hint(
                ErrorCode::InvalidRequest,
                "the session is in stream mode and has no terminal",
                "`castra attach ID` shows it as a conversation",
            )),
        }
    }
}

fn no_screen() -> Error {
    Error::with_hint(
        ErrorCode::Conflict,
        "the session has no terminal now",
        "`castra resume ID` starts it again",
    )
}

fn refused(error: TypeError) -> Error {
    match error {
        TypeError::NoTerminal => no_screen(),
        TypeError::ReadOnly => Error::new(ErrorCode::Forbidden, error.to_string()),
        TypeError::Full => Error::with_hint(ErrorCode::Overloaded, error.to_string(), "try again later"),
    }
}

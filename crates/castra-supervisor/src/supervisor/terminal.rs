//! Terminals: looked at, sat down at, typed into. Refuses sessions that have none.

use super::Supervisor;
use crate::session::screen::{Picture, TypeError, View};
use crate::terminal::Role;
use crate::{Error, Result};
use bytes::Bytes;
use castra_claude::terminal::keys;
use castra_proto::spec::Mode;
use castra_proto::{ErrorCode, SessionId};

impl Supervisor {
    /// Takes a seat at a session's terminal. Errors: `invalid_request` for a session in stream mode.
    pub async fn terminal(&self, id: SessionId, role: Role) -> Result<View> {
        self.has_terminal(id).await?;
        Ok(self.engine.hub(id).await?.screen.join(role))
    }

    /// The screen now. Errors: `invalid_request` for a session in stream mode, `conflict` before the first run has
    /// shown anything to this server.
    pub async fn screen(&self, id: SessionId) -> Result<Picture> {
        self.has_terminal(id).await?;
        self.engine.hub(id).await?.screen.picture().ok_or_else(no_screen)
    }

    /// Types keys by name, and other words as they are. Errors: `invalid_request` for a word that looks like a key
    /// and is none, `conflict` when there is no terminal now, `overloaded` when claude does not read.
    pub async fn type_keys(&self, id: SessionId, words: &[String]) -> Result<()> {
        self.has_terminal(id).await?;
        let hub = self.engine.hub(id).await?;
        let modes =
            hub.screen.with(|terminal| keys::Modes { application_cursor: terminal.modes().is_set(1) });
        let words = words.iter().map(String::as_str);
        let bytes = keys::keys(words, modes.unwrap_or_default())
            .map_err(|error| Error::new(ErrorCode::InvalidRequest, error.to_string()))?;
        hub.screen.type_bytes(Bytes::from(bytes)).map_err(refused)
    }

    async fn has_terminal(&self, id: SessionId) -> Result<()> {
        match self.row(id).await?.mode {
            Mode::Terminal => Ok(()),
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

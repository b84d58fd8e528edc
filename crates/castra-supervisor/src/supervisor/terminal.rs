//! Terminals: looked at, sat down at, typed into. Refuses sessions that have none, and keys of who may not approve.
//!
//! Keys are more than words: they answer dialogs, change the permission mode (shift+tab), run a shell (`!`). Whether
//! a dialog stands cannot decide it either, since one may appear between the look and the key. So whatever types
//! keys has the scope that answers permission requests; words alone are `send`'s, which types them as text.

use super::{Caller, Supervisor};
use crate::host::RunDir;
use crate::session::hub::Hub;
use crate::session::screen::{Picture, TypeError, View};
use crate::session::tty::last_screen;
use crate::terminal::Role;
use crate::{Error, Result};
use bytes::Bytes;
use castra_claude::terminal::keys;
use castra_proto::api::Scope;
use castra_proto::spec::Mode;
use castra_proto::{ErrorCode, SessionId};
use std::sync::Arc;

/// Whoever types keys needs it.
const KEYS: Scope = Scope::Approve;

impl Caller {
    /// The best seat at a terminal that this caller may have.
    pub fn seat(&self) -> Role {
        if self.scope >= KEYS { Role::Driver } else { Role::Reader }
    }

    fn may_type(&self) -> Result<()> {
        match self.seat() {
            Role::Driver => Ok(()),
            Role::Reader => Err(Error::with_hint(
                ErrorCode::Forbidden,
                format!("keys need the scope `{}`; yours is `{}`", KEYS.as_str(), self.scope.as_str()),
                "`castra send` types words with less, and `castra attach --read-only` looks",
            )),
        }
    }
}

impl Supervisor {
    /// Takes a seat at a session's terminal. Errors: `invalid_request` for a session in stream mode, `forbidden` for
    /// a driver's seat without the scope `approve`.
    pub async fn terminal(&self, id: SessionId, role: Role, caller: &Caller) -> Result<View> {
        if role == Role::Driver {
            caller.may_type()?;
        }
        Ok(self.hub_of_terminal(id).await?.screen.join(role))
    }

    /// The screen now. Errors: `invalid_request` for a session in stream mode, `conflict` before the first run has
    /// shown anything to this server.
    pub async fn screen(&self, id: SessionId) -> Result<Picture> {
        self.hub_of_terminal(id).await?.screen.picture().ok_or_else(no_screen)
    }

    /// Types keys by name, and other words as they are. Errors: `invalid_request` for a word that looks like a key
    /// and is none, `forbidden` without the scope `approve`, `conflict` when there is no terminal now, `overloaded`
    /// when claude does not read.
    pub async fn type_keys(&self, id: SessionId, words: &[String], caller: &Caller) -> Result<()> {
        caller.may_type()?;
        let hub = self.hub_of_terminal(id).await?;
        let modes =
            hub.screen.with(|terminal| keys::Modes { application_cursor: terminal.is_application_cursor() });
        let words = words.iter().map(String::as_str);
        let bytes = keys::keys(words, modes.unwrap_or_default()).map_err(|error| {
            Error::with_hint(
                ErrorCode::InvalidRequest,
                error.to_string(),
                "`castra type --literal` types it as text; over HTTP, give its characters one by one",
            )
        })?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_for_those_who_may_approve() {
        let table = [
            (Scope::Read, Role::Reader),
            (Scope::Drive, Role::Reader),
            (Scope::Approve, Role::Driver),
            (Scope::Admin, Role::Driver),
        ];
        for (scope, seat) in table {
            let caller = Caller { by: "token".into(), scope };
            let typed = caller.may_type().map_err(|error| error.problem().code);
            let expected = if seat == Role::Driver { Ok(()) } else { Err(ErrorCode::Forbidden) };
            assert_eq!((caller.seat(), typed), (seat, expected), "{scope:?}");
        }
    }
}

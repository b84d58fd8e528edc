//! How a command fails: text, hint and exit code, chosen here once from the facts below.

use crate::client::{self, Target};
use crate::{config, daemon, exec};
use castra_proto::{ErrorCode, Problem};

/// A command's end that is not success.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// Unset: nothing is said, e.g. since it was said already, or the reader of stdout has left.
    pub(super) message: Option<String>,
    pub(super) hint: Option<String>,
    pub(super) exit: u8,
}

/// The command was typed wrongly.
pub(super) const USAGE: u8 = 2;
pub(super) const TIMED_OUT: u8 = 124;
pub(super) const INTERRUPTED: u8 = 130;

impl Failure {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: Some(message.into()), hint: None, exit: 1 }
    }

    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self { exit: USAGE, ..Self::new(message) }
    }

    /// Only an exit code; everything has been said.
    pub(super) fn silent(exit: u8) -> Self {
        Self { message: None, hint: None, exit }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn exit(mut self, exit: u8) -> Self {
        self.exit = exit;
        self
    }
}

/// An error and what is below it, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(error) = below {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        below = error.source();
    }
    text
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::silent(0),
            _ => Self::new(chain(&error)),
        }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let exit = problem.code.exit_code();
        let hint = problem.hint.clone().or_else(|| hint_of(problem.code).map(String::from));
        Self { message: Some(problem.to_string()), hint, exit }
    }
}

/// The next step where the daemon named none.
fn hint_of(code: ErrorCode) -> Option<&'static str> {
    Some(match code {
        ErrorCode::SessionNotFound => "`castra ps -a` lists all sessions",
        ErrorCode::SessionEnded | ErrorCode::SessionLost => "`castra resume ID` continues the conversation",
        ErrorCode::SessionBusy => {
            "`--if-busy queue` waits for the turn's end; in stream mode `steer` joins it"
        }
        ErrorCode::PermissionGone => "`castra permissions ID` lists what is waiting",
        ErrorCode::InputChanged => "look at the request again: `castra permissions ID`",
        ErrorCode::Unauthorized => "set CASTRA_TOKEN; `castra token create` on the server makes one",
        ErrorCode::CliNotFound => "`castra claude install` fetches one; `castra doctor` says what is missing",
        ErrorCode::SandboxUnavailable => "`castra doctor` says what is missing",
        ErrorCode::AuthFailed => {
            "`--home user` uses your own login, `--env ANTHROPIC_API_KEY` passes your key on, `--demo` needs neither"
        }
        ErrorCode::DiskFull => "`castra prune` removes what retention allows",
        ErrorCode::Internal => "the daemon's log is in $CASTRA_HOME/log/castra.log",
        _ => return None,
    })
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        match error {
            client::Error::Refused(problem) => (*problem).into(),
            client::Error::Url(_) => Self::usage(error.to_string()),
            error => Self::new(chain(&error)),
        }
    }
}

impl From<config::Error> for Failure {
    fn from(error: config::Error) -> Self {
        let hint = match &error {
            config::Error::UnknownKey { .. } => Some("`castra config` lists all keys"),
            config::Error::NoHome => Some("set CASTRA_HOME to a folder of your own"),
            _ => None,
        };
        Self { message: Some(chain(&error)), hint: hint.map(String::from), exit: USAGE }
    }
}

impl From<exec::Error> for Failure {
    fn from(error: exec::Error) -> Self {
        let failure = Self::new(chain(&error));
        match error {
            exec::Error::Spawn { what: "tmux", .. } => {
                failure.hint("install tmux; `castra doctor` looks for it")
            }
            _ => failure,
        }
    }
}

impl From<daemon::Error> for Failure {
    fn from(error: daemon::Error) -> Self {
        use daemon::Error;
        let failure = Self::new(chain(&error));
        match &error {
            Error::Supervisor(inner) => inner.problem().into(),
            Error::Open { path, .. } => failure.hint(format!(
                "castra keeps secrets there: `chmod 700 {}`, or set CASTRA_HOME to another folder",
                path.display()
            )),
            Error::Listen(inner) => match inner.hint() {
                Some(hint) => failure.hint(hint),
                None => failure,
            },
            Error::Foreign { .. } => failure.hint("set CASTRA_HOME to a folder of your own"),
            Error::Running { other: Some(other), .. } => {
                failure.hint(format!("it is pid {}; `castra down` ends it", other.process.pid))
            }
            Error::NotRunning { .. } => failure.hint("`castra up -d` starts one"),
            Error::StartFailed { .. } | Error::StartTimeout { .. } => {
                failure.hint("the log is in $CASTRA_HOME/log/; `castra up` shows it as it comes")
            }
            _ => failure,
        }
    }
}

/// No daemon, and none may be started.
pub(super) fn not_running(target: &Target) -> Failure {
    Failure::new(format!("no daemon answers at {target}")).hint("`castra up -d` starts one")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_become_exit_codes_and_hints() {
        let table: &[(ErrorCode, u8, Option<&str>)] = &[
            (ErrorCode::InvalidRequest, 2, None),
            (ErrorCode::Timeout, 124, None),
            (ErrorCode::CliExited, 1, None),
            (ErrorCode::SessionEnded, 1, Some("`castra resume ID` continues the conversation")),
        ];
        for (code, exit, hint) in table {
            let failure = Failure::from(Problem::new(*code, "what happened"));
            assert_eq!(
                failure,
                Failure {
                    message: Some(format!("what happened ({code})")),
                    hint: hint.map(String::from),
                    exit: *exit
                }
            );
        }
        let own = Failure::from(Problem::new(ErrorCode::SessionEnded, "x").hint("do this"));
        assert_eq!(own.hint.as_deref(), Some("do this"), "the daemon knows better");
    }

    #[test]
    fn a_closed_pipe_is_no_error() {
        let closed = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert_eq!(Failure::from(closed), Failure::silent(0));
    }
}

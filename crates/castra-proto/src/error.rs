//! Errors as they leave castra: a closed list of codes, and `application/problem+json`.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! codes {
    ($($variant:ident $name:literal $status:literal $exit:literal $meaning:literal,)*) => {
        /// What went wrong, as a program can read it. docs/errors.md prints this table.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        pub enum ErrorCode { $(#[doc = $meaning] $variant,)* }

        impl ErrorCode {
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$variant,)*];

            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// HTTP status of an answer with this code.
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            /// Exit code of a command that ended with it: 1 failed, 2 usage, 124 timed out.
            pub const fn exit_code(self) -> u8 {
                match self { $(Self::$variant => $exit,)* }
            }

            /// The meaning, as docs/errors.md prints it.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }
        }
    };
}

codes! {
    InvalidRequest "invalid_request" 400 2 "The request or the combination of its fields is not valid.",
    UnknownField "unknown_field" 400 2 "A field of the request is not known.",
    Unauthorized "unauthorized" 401 1 "No token, or one that is not known.",
    Forbidden "forbidden" 403 1 "The token's scope, the Host or the Origin does not allow it.",
    NotFound "not_found" 404 1 "There is no such thing.",
    SessionNotFound "session_not_found" 404 1 "There is no such session.",
    SessionBusy "session_busy" 409 1 "A turn is running and the request said not to wait.",
    SessionEnded "session_ended" 409 1 "The session's newest run has ended; resume it first.",
    SessionLost "session_lost" 409 1 "The session's newest run was lost; resume it first.",
    SessionStale "session_stale" 409 1 "The session's host cannot be reached.",
    Conflict "conflict" 409 1 "Somebody else was first, or the state does not allow it.",
    IdempotencyMismatch "idempotency_mismatch" 422 1 "The Idempotency-Key was used with another body.",
    LaunchBlocked "launch_blocked" 409 1 "A launch block holds such tasks back.",
    PermissionGone "permission_gone" 409 1 "The permission request is answered or withdrawn.",
    InputChanged "input_changed" 409 1 "The answer is to another input than the one that is waiting.",
    CliNotFound "cli_not_found" 503 1 "No claude executable was found and installation is off or failed.",
    CliStartFailed "cli_start_failed" 502 1 "claude could not be started.",
    StartTimeout "start_timeout" 504 124 "claude did not answer `initialize` in time.",
    CliExited "cli_exited" 502 1 "claude ended before the answer.",
    TurnFailed "turn_failed" 502 1 "The turn ended without success; claude lives.",
    ApiError "api_error" 502 1 "The model's API refused the request, or could not be reached.",
    Timeout "timeout" 504 124 "A limit of time was reached.",
    AuthFailed "auth_failed" 502 1 "The model's API refused the credential.",
    RateLimited "rate_limited" 429 1 "The model's API limits the rate.",
    Overloaded "overloaded" 429 1 "Too much is queued, here or at the model's API.",
    BudgetExceeded "budget_exceeded" 402 1 "The session's budget is spent.",
    MaxTurns "max_turns" 409 1 "The session's number of turns is reached.",
    SandboxUnavailable "sandbox_unavailable" 503 1 "The sandbox that was asked for cannot be had here.",
    ShuttingDown "shutting_down" 503 1 "The daemon is about to end; another one may be there soon.",
    HostUnreachable "host_unreachable" 503 1 "The host does not answer.",
    HostKey "host_key" 502 1 "The host's key is unknown or has changed.",
    TooLarge "too_large" 413 1 "Something is larger than its limit.",
    DiskFull "disk_full" 507 1 "The disk is full.",
    Gone "gone" 410 1 "The cursor belongs to a stream that is no more.",
    Internal "internal" 500 1 "A defect of castra; the log says more.",
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// RFC 9457 problem details, with castra's code and the next step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// The meaning of the code, the same for every occurrence.
    pub title: String,
    pub status: u16,
    pub code: ErrorCode,
    /// What happened this time.
    pub detail: String,
    /// The next step, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Problem {
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self { title: code.meaning().into(), status: code.status(), code, detail: detail.into(), hint: None }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.detail, self.code)
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_on_the_wire_are_the_names_in_the_table() {
        for code in ErrorCode::ALL {
            assert_eq!(serde_json::to_string(code).unwrap(), format!("\"{code}\""));
            assert!((400..600).contains(&code.status()) && code.exit_code() != 0, "{code}");
        }
    }
}

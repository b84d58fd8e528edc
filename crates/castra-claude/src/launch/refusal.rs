//! Why a session is not started: one variant per reason, each with the next step.

use thiserror::Error;

/// A spec that cannot work, found before anything was started.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    #[error("`{field}` is not built yet; leave it out")]
    NotYet { field: &'static str },
    #[error("`{field}` belongs to a terminal session; set mode: terminal, or leave it out")]
    NeedsTerminal { field: &'static str },
    #[error("`{field}` has no effect in a terminal session: {reason}")]
    NotInTerminal { field: &'static str, reason: &'static str },
    #[error(
        "permission mode `{mode}` may ask, and permission_timeout_s is 0, so nobody answers; \
         use permission_mode dontAsk, or set a timeout"
    )]
    NobodyToAnswer { mode: &'static str },
    #[error(
        "bypassPermissions as root is refused: claude could change the whole machine; run castra as another \
         user, or set allow_root_bypass under [claude] in castra.toml"
    )]
    BypassAsRoot,
    #[error("`{flag}` in extra_args is set by castra itself; {instead}")]
    ReservedFlag { flag: String, instead: &'static str },
    #[error("extra_args may hold options only, `{argument}` is none; send text as a message")]
    PositionalArgument { argument: String },
    #[error("`{name}` in env is castra's own; {instead}")]
    ReservedVariable { name: String, instead: &'static str },
    #[error(
        "`{name}` in env is not a name for a variable; use letters, digits and `_`, without a leading digit"
    )]
    VariableName { name: String },
    #[error("`{field}` holds a NUL byte; remove it")]
    Nul { field: String },
    #[error("`{field}` is {value:?}; it can be {allowed}")]
    Value { field: &'static str, value: String, allowed: &'static str },
    #[error("`{field}` must be {shape}")]
    Shape { field: String, shape: &'static str },
    #[error("`{first}` and `{second}` exclude each other; keep one")]
    Exclusive { first: &'static str, second: &'static str },
    #[error("`{field}` names {path:?}, which was not read; check that the file exists and can be read")]
    FileNotRead { field: &'static str, path: String },
    #[error("demo needs the scripted model, and none runs; start the daemon with demo allowed")]
    NoDemoModel,
    #[error("`{path}` must be absolute")]
    NotAbsolute { path: String },
}

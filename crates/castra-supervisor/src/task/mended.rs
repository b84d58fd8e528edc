//! Which errors no waiting mends: somebody has to change the task, or its machine, first. Pure.

use crate::Error;
use crate::host::HostError;
use castra_proto::ErrorCode;
use castra_store::StoreError;
use rustix::io::Errno;

/// Refusals of the system that a later try finds the same. Those that have a code of their own are told by it.
const ERRNOS: [Errno; 5] = [Errno::PERM, Errno::EXIST, Errno::NODEV, Errno::ROFS, Errno::NOTEMPTY];

/// Whoever tries this again is told the same, until a person has done something about it.
pub(super) fn is_for_good(error: &Error) -> bool {
    // A rule of castra's, and no accident of its store or of a machine.
    let is_rule = matches!(error, Error::Refused(_) | Error::Launch(_));
    match error.problem().code {
        ErrorCode::InvalidRequest
        | ErrorCode::UnknownField
        | ErrorCode::Unauthorized
        | ErrorCode::Forbidden
        | ErrorCode::NotFound
        | ErrorCode::SessionNotFound
        | ErrorCode::IdempotencyMismatch
        | ErrorCode::TooLarge
        | ErrorCode::Gone
        | ErrorCode::HostKey
        | ErrorCode::AuthFailed
        | ErrorCode::CliNotFound
        | ErrorCode::SandboxUnavailable
        | ErrorCode::BudgetExceeded
        | ErrorCode::MaxTurns => true,
        ErrorCode::LaunchBlocked
        | ErrorCode::ShuttingDown
        | ErrorCode::HostUnreachable
        | ErrorCode::DiskFull
        | ErrorCode::Overloaded
        | ErrorCode::RateLimited
        | ErrorCode::Timeout
        | ErrorCode::StartTimeout
        | ErrorCode::SessionBusy
        | ErrorCode::SessionStale => false,
        ErrorCode::Conflict
        | ErrorCode::SessionEnded
        | ErrorCode::SessionLost
        | ErrorCode::PermissionGone
        | ErrorCode::InputChanged
        | ErrorCode::CliStartFailed
        | ErrorCode::CliExited
        | ErrorCode::TurnFailed
        | ErrorCode::ApiError => is_rule,
        ErrorCode::Internal => match error {
            Error::Store(StoreError::BlobDamaged { .. }) => true,
            Error::Host(HostError::Relay(relay)) => {
                relay.errno().is_some_and(|errno| ERRNOS.contains(&Errno::from_raw_os_error(errno)))
            }
            _ => is_rule,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use castra_proto::shim::relay::RelayError;
    use castra_proto::{Problem, SessionId, TaskId};
    use castra_store::{CommitError, TaskError};

    fn io(errno: i32) -> Error {
        let (op, path, message) = ("open".into(), "/x".into(), String::new());
        Error::Host(HostError::Relay(RelayError::Io { op, path, errno, message }))
    }

    #[test]
    fn what_only_a_person_mends_is_not_waited_for() {
        let relay = |error| Error::Host(HostError::Relay(error));
        let rule = |code| Error::Refused(Problem::new(code, "no"));
        let named = |by| CommitError::NameTaken { name: "n".into(), by };
        for (error, expected) in [
            (rule(ErrorCode::InvalidRequest), true),
            (rule(ErrorCode::Forbidden), true),
            (rule(ErrorCode::NotFound), true),
            (rule(ErrorCode::Conflict), true),
            (rule(ErrorCode::Internal), true),
            (rule(ErrorCode::LaunchBlocked), false),
            (rule(ErrorCode::ShuttingDown), false),
            (rule(ErrorCode::HostUnreachable), false),
            (relay(RelayError::Outside { path: ".castra/1".into() }), true),
            (relay(RelayError::BadPath { path: "x".into() }), true),
            // EACCES, ENOENT, EROFS, EPERM; then ENOSPC, EIO, EMFILE, EAGAIN.
            (io(13), true),
            (io(2), true),
            (io(30), true),
            (io(1), true),
            (io(28), false),
            (io(5), false),
            (io(24), false),
            (io(11), false),
            (relay(RelayError::Busy), false),
            (Error::Host(HostError::Unreachable("down".into())), false),
            (Error::Task(TaskError::Mismatch), true),
            (Error::Task(TaskError::Moved(3)), false),
            (Error::Task(TaskError::ParentIdle(TaskId::now())), false),
            // Whoever has the name now may end.
            (Error::Commit(named(SessionId::now())), false),
            (Error::Store(StoreError::BlobDamaged { path: "/b".into() }), true),
            (Error::Store(StoreError::Closed), false),
            (Error::Store(StoreError::DiskFull), false),
        ] {
            assert_eq!(is_for_good(&error), expected, "{error:?}");
        }
    }
}

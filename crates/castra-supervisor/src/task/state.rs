//! The transitions of a task: one pure function. Refuses everything that is not on the table.

use castra_proto::TaskState;

/// What may move a task from one state to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The queue let it go.
    Admitted,
    /// Its session exists.
    Started,
    /// claude waits for somebody.
    Asked,
    /// Nothing is left that it waits for.
    Answered,
    Done,
    Failed,
    Cancelled,
    /// Another attempt, in a fresh session.
    Retried,
    /// Another attempt, in the session of the one before.
    Resumed,
}

impl Cause {
    #[cfg(test)]
    pub(crate) const ALL: [Cause; 9] = [
        Self::Admitted,
        Self::Started,
        Self::Asked,
        Self::Answered,
        Self::Done,
        Self::Failed,
        Self::Cancelled,
        Self::Retried,
        Self::Resumed,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Started => "started",
            Self::Asked => "asked",
            Self::Answered => "answered",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Retried => "retried",
            Self::Resumed => "resumed",
        }
    }

    /// The cause that ends a task in this state, if it is an end.
    pub(crate) const fn of_end(state: TaskState) -> Option<Self> {
        match state {
            TaskState::Done => Some(Self::Done),
            TaskState::Failed => Some(Self::Failed),
            TaskState::Cancelled => Some(Self::Cancelled),
            _ => None,
        }
    }
}

/// This cause has no place in this state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a task that is {state} cannot be moved by {cause:?}")]
pub(crate) struct Illegal {
    pub state: TaskState,
    pub cause: Cause,
}

pub(crate) const fn next(state: TaskState, cause: Cause) -> Result<TaskState, Illegal> {
    use TaskState::{Cancelled, Done, Failed, NeedsInput, Queued, Running, Starting};
    Ok(match (state, cause) {
        (Queued, Cause::Admitted) => Starting,
        (Starting, Cause::Started) => Running,
        (Running | NeedsInput, Cause::Asked) => NeedsInput,
        (Running | NeedsInput, Cause::Answered) => Running,
        // Nothing was begun that could be done.
        (Running | NeedsInput, Cause::Done) => Done,
        (Queued | Starting | Running | NeedsInput, Cause::Failed) => Failed,
        (Queued | Starting | Running | NeedsInput, Cause::Cancelled) => Cancelled,
        (Failed | Done | Cancelled, Cause::Retried | Cause::Resumed) => Queued,
        _ => return Err(Illegal { state, cause }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every state with every cause; what is not written here is refused.
    #[test]
    fn the_table() {
        let table = |state: TaskState| -> &[(Cause, TaskState)] {
            use TaskState::*;
            match state {
                Queued => {
                    &[(Cause::Admitted, Starting), (Cause::Failed, Failed), (Cause::Cancelled, Cancelled)]
                }
                Starting => {
                    &[(Cause::Started, Running), (Cause::Failed, Failed), (Cause::Cancelled, Cancelled)]
                }
                Running | NeedsInput => &[
                    (Cause::Asked, NeedsInput),
                    (Cause::Answered, Running),
                    (Cause::Done, Done),
                    (Cause::Failed, Failed),
                    (Cause::Cancelled, Cancelled),
                ],
                Done | Failed | Cancelled => &[(Cause::Retried, Queued), (Cause::Resumed, Queued)],
            }
        };
        for state in TaskState::ALL {
            for cause in Cause::ALL {
                let to = table(state).iter().find(|(by, _)| *by == cause).map(|(_, to)| *to);
                assert_eq!(next(state, cause).ok(), to, "{state} by {cause:?}");
            }
        }
    }
}

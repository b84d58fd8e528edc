//! The transitions of a run: one pure function. Refuses everything that is not on the table.

use castra_proto::RunState;

/// What may move a run from one state to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Admission let it in.
    Admitted,
    /// claude answered `initialize`.
    Ready,
    /// claude says that a turn runs.
    TurnStarted,
    /// claude says that nothing runs.
    TurnOver,
    /// claude waits for somebody.
    Asked,
    /// Nothing is left that it waits for.
    Answered,
    /// The shim logged an exit, or the start was refused.
    Exited,
    /// Shim or guard are gone, or the host was restarted.
    Vanished,
}

impl Cause {
    #[cfg(test)]
    pub(crate) const ALL: [Cause; 8] = [
        Self::Admitted,
        Self::Ready,
        Self::TurnStarted,
        Self::TurnOver,
        Self::Asked,
        Self::Answered,
        Self::Exited,
        Self::Vanished,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Ready => "ready",
            Self::TurnStarted => "turn_started",
            Self::TurnOver => "turn_over",
            Self::Asked => "asked",
            Self::Answered => "answered",
            Self::Exited => "exited",
            Self::Vanished => "vanished",
        }
    }
}

/// This cause has no place in this state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a run that is {state} cannot be moved by {cause:?}")]
pub(crate) struct Illegal {
    pub state: RunState,
    pub cause: Cause,
}

/// The state after `cause`; the same state means that nothing changes.
///
/// An end is final. claude may report a turn before it has answered `initialize`, and may be asked
/// for nothing while it is idle (a background task), so these are not illegal.
pub(crate) fn next(state: RunState, cause: Cause) -> Result<RunState, Illegal> {
    use Cause::*;
    use RunState::*;
    match (state, cause) {
        (Ended | Lost, _) => Err(Illegal { state, cause }),
        (_, Exited) => Ok(Ended),
        (_, Vanished) => Ok(Lost),
        (Queued, Admitted) => Ok(Starting),
        (Queued, _) => Err(Illegal { state, cause }),
        (_, Admitted) => Err(Illegal { state, cause }),
        (Starting, Ready) => Ok(Idle),
        (Starting, Asked) => Ok(RequiresAction),
        (Starting, TurnStarted) => Ok(Running),
        (Starting, TurnOver | Answered) => Ok(Starting),
        (Idle | Running | RequiresAction, Ready) => Ok(state),
        (Idle, Answered) => Ok(Idle),
        (Idle | Running | RequiresAction, TurnStarted) => Ok(Running),
        (Idle | Running | RequiresAction, TurnOver) => Ok(Idle),
        (Idle | Running | RequiresAction, Asked) => Ok(RequiresAction),
        (Running | RequiresAction, Answered) => Ok(Running),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every state and cause, a row a state: the whole table in sight.
    #[test]
    fn the_whole_table() {
        let mut table = String::new();
        for state in RunState::ALL {
            table += &format!("{state}:");
            for cause in Cause::ALL {
                table += &match next(state, cause) {
                    Ok(to) if to == state => format!(" {}=.", cause.as_str()),
                    Ok(to) => format!(" {}={to}", cause.as_str()),
                    Err(_) => format!(" {}=-", cause.as_str()),
                };
            }
            table.push('\n');
        }
        assert_eq!(
            table,
            "\
queued: admitted=starting ready=- turn_started=- turn_over=- asked=- answered=- exited=ended vanished=lost
starting: admitted=- ready=idle turn_started=running turn_over=. asked=requires_action answered=. exited=ended vanished=lost
idle: admitted=- ready=. turn_started=running turn_over=. asked=requires_action answered=. exited=ended vanished=lost
running: admitted=- ready=. turn_started=. turn_over=idle asked=requires_action answered=. exited=ended vanished=lost
requires_action: admitted=- ready=. turn_started=running turn_over=idle asked=. answered=running exited=ended vanished=lost
ended: admitted=- ready=- turn_started=- turn_over=- asked=- answered=- exited=- vanished=-
lost: admitted=- ready=- turn_started=- turn_over=- asked=- answered=- exited=- vanished=-
"
        );
    }
}

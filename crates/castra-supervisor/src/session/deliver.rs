//! Which waiting message goes to claude next: a pure choice.

use castra_proto::MessageId;
use castra_proto::api::IfBusy;

/// What the choice depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Now {
    /// `initialize` is answered and nobody has asked for the end.
    pub open: bool,
    pub busy: bool,
    /// A message is inside claude and was not seen back.
    pub in_flight: bool,
    /// An interrupt was sent in this turn.
    pub interrupting: bool,
    /// Nothing can join a turn: on a terminal, Enter might answer a dialog that has just come.
    pub closed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    Write(MessageId),
    /// End the turn first.
    Interrupt,
    Wait,
}

/// At most one undelivered message is inside claude: it merges those that it has queued, and keeps
/// only the last uuid (design §4). Those that do not wait for the turn's end go before those that do.
/// An interrupt is no message: 2.1.197 says a message back only when the first block of its answer ends
/// (facts/claude-cli.md §4), and until then it would wait for the very turn that it is to end.
pub(crate) fn choose(now: Now, waiting: &[(MessageId, IfBusy)]) -> Choice {
    if !now.open {
        return Choice::Wait;
    }
    let first =
        |wanted: &[IfBusy]| waiting.iter().find(|(_, if_busy)| wanted.contains(if_busy)).map(|(id, _)| *id);
    if now.busy && first(&[IfBusy::Interrupt]).is_some() {
        return if now.interrupting { Choice::Wait } else { Choice::Interrupt };
    }
    if now.in_flight {
        return Choice::Wait;
    }
    if !now.busy {
        return first(&[IfBusy::Interrupt, IfBusy::Steer])
            .or_else(|| waiting.first().map(|(id, _)| *id))
            .map_or(Choice::Wait, Choice::Write);
    }
    first(&[IfBusy::Steer]).filter(|_| !now.closed).map_or(Choice::Wait, Choice::Write)
}

#[cfg(test)]
mod tests {
    use super::*;
    use IfBusy::{Interrupt, Queue, Steer};
    use uuid::Uuid;

    fn id(n: u128) -> MessageId {
        MessageId(Uuid::from_u128(n))
    }

    #[test]
    fn the_choices() {
        let idle = Now { open: true, ..Now::default() };
        let busy = Now { busy: true, ..idle };
        let table: &[(Now, &[IfBusy], Choice)] = &[
            (Now::default(), &[Queue], Choice::Wait),
            (idle, &[], Choice::Wait),
            (idle, &[Queue, Queue], Choice::Write(id(0))),
            (idle, &[Queue, Interrupt], Choice::Write(id(1))),
            (idle, &[Queue, Steer], Choice::Write(id(1))),
            (Now { in_flight: true, ..idle }, &[Queue], Choice::Wait),
            (busy, &[Queue], Choice::Wait),
            (busy, &[Queue, Steer], Choice::Write(id(1))),
            (busy, &[Queue, Steer, Interrupt], Choice::Interrupt),
            (Now { closed: true, ..busy }, &[Queue, Steer], Choice::Wait),
            (Now { closed: true, ..busy }, &[Steer, Interrupt], Choice::Interrupt),
            (Now { closed: true, ..idle }, &[Queue, Steer], Choice::Write(id(1))),
            (Now { interrupting: true, ..busy }, &[Interrupt], Choice::Wait),
            (Now { in_flight: true, ..busy }, &[Steer], Choice::Wait),
            (Now { in_flight: true, ..busy }, &[Queue, Interrupt], Choice::Interrupt),
            (Now { in_flight: true, interrupting: true, ..busy }, &[Interrupt], Choice::Wait),
            (Now { in_flight: true, ..idle }, &[Interrupt], Choice::Wait),
        ];
        for (now, waiting, choice) in table {
            let waiting: Vec<_> =
                waiting.iter().enumerate().map(|(n, kind)| (id(n as u128), *kind)).collect();
            assert_eq!(choose(*now, &waiting), *choice, "{now:?} {waiting:?}");
        }
    }
}

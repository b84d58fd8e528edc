//! Which firing of a schedule is to be seen to now, what is passed over, and when the next one is. Pure: whoever asks
//! says what time it is.

use super::cron::{MissedRule, Schedule};
use castra_proto::Timestamp;
use castra_proto::task::Missed;

/// Microseconds: a firing that is this late was not missed, where nothing is made up for. Longer than a daemon takes to
/// be started again.
const LATE: i64 = 60_000_000;
/// Missed firings that are counted.
const COUNTED: u32 = 1000;

/// What is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    /// The newest of those that are passed over, and how many they are; at most [`COUNTED`].
    pub passed: Option<(Timestamp, u32)>,
    /// The one to see to.
    pub fire: Option<Timestamp>,
    /// The next one on the plan; it may be due too.
    pub next: Option<Timestamp>,
}

/// `planned` is the oldest firing that nobody has seen to. None: it is still to come.
pub(crate) fn due(schedule: &Schedule, planned: Timestamp, now: Timestamp, rule: Missed) -> Option<Due> {
    if planned > now {
        return None;
    }
    let before = Timestamp(planned.0 - 1);
    let wanted = match rule {
        Missed::All { max } => schedule.missed(before, now, MissedRule::All { max: max.max(1) }),
        Missed::Once => schedule.missed(before, now, MissedRule::Once),
        Missed::Skip => {
            let newest = schedule.missed(before, now, MissedRule::Once);
            newest.into_iter().filter(|at| now.0 - at.0 <= LATE).collect()
        }
    };
    let fire = wanted.first().copied();
    let next = wanted.get(1).copied().or_else(|| schedule.next_after(now));
    let end = fire.unwrap_or(Timestamp(now.0 + 1));
    let mut passed = None;
    let older = |at: &Timestamp| schedule.last_before(*at);
    let all = std::iter::successors(schedule.last_before(end), older);
    for at in all.take_while(|at| *at >= planned).take(COUNTED as usize) {
        let (newest, count) = passed.unwrap_or((at, 0));
        passed = Some((newest, count + 1));
    }
    Some(Due { passed, fire, next })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        serde_json::from_value(text.into()).unwrap()
    }

    fn daily() -> Schedule {
        Schedule::parse("0 12 * * *", "UTC").unwrap()
    }

    fn see(planned: &str, now: &str, rule: Missed) -> Option<Due> {
        due(&daily(), at(planned), at(now), rule)
    }

    fn is(passed: Option<(&str, u32)>, fire: Option<&str>, next: &str) -> Option<Due> {
        Some(Due {
            passed: passed.map(|(newest, n)| (at(newest), n)),
            fire: fire.map(at),
            next: Some(at(next)),
        })
    }

    const ONE: &str = "2026-11-01T12:00:00Z";

    #[test]
    fn nothing_before_its_time_and_one_at_it() {
        for rule in [Missed::Skip, Missed::Once, Missed::All { max: 3 }] {
            assert_eq!(see(ONE, "2026-11-01T11:59:59.999999Z", rule), None);
            for now in [ONE, "2026-11-01T12:01:00Z"] {
                assert_eq!(
                    see(ONE, now, rule),
                    is(None, Some(ONE), "2026-11-02T12:00:00Z"),
                    "{rule:?} {now}"
                );
            }
        }
    }

    #[test]
    fn what_was_missed_is_made_up_for_as_the_rule_says() {
        let now = "2026-11-05T09:00:00Z";
        assert_eq!(
            see(ONE, now, Missed::Skip),
            is(Some(("2026-11-04T12:00:00Z", 4)), None, "2026-11-05T12:00:00Z")
        );
        assert_eq!(
            see(ONE, now, Missed::Once),
            is(Some(("2026-11-03T12:00:00Z", 3)), Some("2026-11-04T12:00:00Z"), "2026-11-05T12:00:00Z")
        );
        let all = Missed::All { max: 3 };
        assert_eq!(
            see(ONE, now, all),
            is(Some((ONE, 1)), Some("2026-11-02T12:00:00Z"), "2026-11-03T12:00:00Z")
        );
        assert_eq!(
            see("2026-11-03T12:00:00Z", now, all),
            is(None, Some("2026-11-03T12:00:00Z"), "2026-11-04T12:00:00Z")
        );
        assert_eq!(
            see("2026-11-04T12:00:00Z", now, all),
            is(None, Some("2026-11-04T12:00:00Z"), "2026-11-05T12:00:00Z")
        );
    }

    #[test]
    fn a_daemon_that_was_away_for_a_moment_has_missed_nothing() {
        assert_eq!(
            see("2026-10-30T12:00:00Z", "2026-11-01T12:00:30Z", Missed::Skip),
            is(Some(("2026-10-31T12:00:00Z", 2)), Some(ONE), "2026-11-02T12:00:00Z")
        );
    }

    #[test]
    fn a_year_of_seconds_costs_no_more_than_a_thousand_steps() {
        let schedule = Schedule::parse("* * * * * *", "UTC").unwrap();
        let found = due(&schedule, at("2025-11-01T12:00:00Z"), at(ONE), Missed::Once).unwrap();
        assert_eq!((found.passed.unwrap().1, found.fire), (COUNTED, Some(at(ONE))));
    }

    #[test]
    fn a_plan_whose_zone_has_changed_goes_on_with_the_next_time() {
        // What was planned is no time of the schedule any more.
        assert_eq!(
            see("2026-11-01T11:00:00Z", "2026-11-01T11:30:00Z", Missed::Once),
            is(None, None, "2026-11-01T12:00:00Z")
        );
    }
}

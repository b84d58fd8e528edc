//! Schedules: when a cron expression fires in a time zone, and what is made up for. Refuses clocks.
//!
//! Five fields (minute, hour, day of month, month, day of week) or six with seconds in front; `@hourly`, `@daily`,
//! `@weekly`, `@monthly`, `@yearly`. Lists, ranges, steps, names of months and days; `L` (last), `W` (nearest working
//! day), `#` (nth weekday). As everywhere, a day of month **or** a day of week is enough where both are given.
//!
//! # When the clock is changed
//!
//! What is meant depends on whether the hour field names hours or begins with `*`:
//!
//! - **Hours are named** (`30 2 * * *`, `0 9-17 * * *`): each named time fires once a day. One that does not exist,
//!   because the clock is put forward over it, fires when the clock has been put forward; several such fire once. One
//!   that occurs twice fires the first time only.
//! - **Every hour, or every so many** (`*/15 * * * *`, `0 */2 * * *`): it fires whenever the clock shows such a time:
//!   in an hour that occurs twice both times, in one that does not exist not at all.
//!
//! So a nightly task is neither skipped nor run twice, and one of every quarter of an hour keeps its quarters. The
//! fields are matched by croner on the wall clock alone; its own rule for changes of the clock asks for one single hour
//! and would skip or double `30 2,14 * * *`.
//!
//! Zones come from the system's data where there is any, else from what castra was built with.

mod fields;
mod search;

use castra_proto::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Most firings that [`MissedRule::All`] makes up for.
pub const MAX_MISSED: u32 = 1000;

/// A cron expression in a time zone.
#[derive(Clone)]
pub struct Schedule {
    expression: String,
    cron: croner::Cron,
    zone: TimeZone,
    /// The hour field names hours: see the module's page.
    named: bool,
}

/// Why a schedule is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    #[error(
        "a schedule has five fields (minute hour day month weekday) or six (second first); this has {found}"
    )]
    Fields { found: usize },
    #[error("{field} `{value}` is not understood: it is {allowed}")]
    Field { field: &'static str, value: String, allowed: &'static str },
    #[error("`{name}` is not known; there are @hourly, @daily, @weekly, @monthly, @yearly")]
    Nickname { name: String },
    #[error("no day is ever like this: look at day and month")]
    Never,
    #[error("time zone `{name}` is not known; write it like `Europe/Berlin` or `UTC`")]
    Zone { name: String },
}

/// What happens with firings for which nobody was there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissedRule {
    /// Nothing.
    Skip,
    /// The newest one is made up for.
    #[default]
    Once,
    /// The newest `max` of them are, at most [`MAX_MISSED`].
    All { max: u32 },
}

impl Schedule {
    /// `zone`: an IANA name.
    pub fn parse(expression: &str, zone: &str) -> Result<Schedule, CronError> {
        let known = TimeZone::get(zone).map_err(|_| CronError::Zone { name: zone.to_owned() })?;
        Schedule::new(expression, known)
    }

    fn new(expression: &str, zone: TimeZone) -> Result<Schedule, CronError> {
        let fields::Parsed { cron, named } = fields::parse(expression)?;
        Ok(Schedule { expression: expression.to_owned(), cron, zone, named })
    }

    /// The first firing after this instant. `None`: never again, or beyond the year 4999.
    pub fn next_after(&self, at: Timestamp) -> Option<Timestamp> {
        let at = jiff::Timestamp::from_microsecond(at.0).ok()?;
        self.next(at).map(|at| Timestamp(at.as_microsecond()))
    }

    /// The last firing before this instant.
    pub fn last_before(&self, at: Timestamp) -> Option<Timestamp> {
        let at = jiff::Timestamp::from_microsecond(at.0).ok()?;
        self.previous(at).map(|at| Timestamp(at.as_microsecond()))
    }

    /// Firings after `last` and not after `now` that are to be made up for, oldest first. `last` is the newest one
    /// that was seen to, or when the schedule was made.
    pub fn missed(&self, last: Timestamp, now: Timestamp, rule: MissedRule) -> Vec<Timestamp> {
        let most = match rule {
            MissedRule::Skip => 0,
            MissedRule::Once => 1,
            MissedRule::All { max } => max.min(MAX_MISSED),
        };
        // Backwards, so that a year of minutes costs no more than `most` steps.
        let older = |at: &Timestamp| self.last_before(*at);
        let newest = self.last_before(Timestamp(now.0.saturating_add(1)));
        let mut missed: Vec<Timestamp> =
            std::iter::successors(newest, older).take_while(|at| *at > last).take(most as usize).collect();
        missed.reverse();
        missed
    }
}

impl fmt::Debug for Schedule {
    /// croner shows each bit of each field.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let zone = self.zone.iana_name();
        f.debug_struct("Schedule").field("expression", &self.expression).field("zone", &zone).finish()
    }
}

#[cfg(test)]
mod tests;

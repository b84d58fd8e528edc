//! From the wall clock to instants: stretch by stretch of one offset, in both directions. Refuses expressions.
//!
//! Within a stretch the wall clock runs evenly, so that the next match of the fields is the next firing. What is odd
//! is at a stretch's beginning: times that the clock jumped over, or times that it shows again.

use super::Schedule;
use jiff::civil::DateTime;
use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};

const INSTANT: SignedDuration = SignedDuration::from_nanos(1);

/// A time with one offset.
struct Stretch {
    /// Its first instant and the offset before that; `None` if it has no beginning.
    start: Option<(Timestamp, Offset)>,
    offset: Offset,
    /// The first instant after it.
    end: Option<Timestamp>,
}

impl Schedule {
    pub(super) fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let mut stretch = self.stretch(after);
        let mut found = self.first_in(&stretch, stretch.offset.to_datetime(after), false);
        while found.is_none() {
            stretch = self.stretch(stretch.end?);
            let (start, _) = stretch.start?;
            found = if self.jumped(&stretch) {
                Some(start)
            } else {
                self.first_in(&stretch, stretch.offset.to_datetime(start), true)
            };
        }
        found
    }

    pub(super) fn previous(&self, before: Timestamp) -> Option<Timestamp> {
        // The newest instant that counts, so that every search below is inclusive.
        let mut until = before.checked_sub(INSTANT).ok()?;
        loop {
            let stretch = self.stretch(until);
            let found = self.last_in(&stretch, stretch.offset.to_datetime(until));
            if found.is_some() {
                return found;
            }
            let (start, _) = stretch.start?;
            if self.jumped(&stretch) {
                return Some(start);
            }
            until = start.checked_sub(INSTANT).ok()?;
        }
    }

    fn stretch(&self, at: Timestamp) -> Stretch {
        let start = at.checked_add(INSTANT).ok().and_then(|next| self.zone.preceding(next).next());
        let start = start.map(|change| change.timestamp()).and_then(|start| {
            let before = start.checked_sub(INSTANT).ok()?;
            Some((start, self.zone.to_offset(before)))
        });
        Stretch {
            start,
            offset: self.zone.to_offset(at),
            end: self.zone.following(at).next().map(|change| change.timestamp()),
        }
    }

    fn first_in(&self, stretch: &Stretch, from: DateTime, inclusive: bool) -> Option<Timestamp> {
        let (from, inclusive) = match self.fresh(stretch) {
            Some(fresh) if fresh > from => (fresh, true),
            _ => (from, inclusive),
        };
        let time = self.cron.find_next_occurrence(&from, inclusive).ok()?;
        let at = stretch.offset.to_timestamp(time).ok()?;
        stretch.end.is_none_or(|end| at < end).then_some(at)
    }

    fn last_in(&self, stretch: &Stretch, until: DateTime) -> Option<Timestamp> {
        let time = self.cron.find_previous_occurrence(&until, true).ok()?;
        if self.fresh(stretch).is_some_and(|fresh| time < fresh) {
            return None;
        }
        let at = stretch.offset.to_timestamp(time).ok()?;
        stretch.start.is_none_or(|(start, _)| at >= start).then_some(at)
    }

    /// Until when the clock shows what it has shown already, and named hours do not fire again.
    fn fresh(&self, stretch: &Stretch) -> Option<DateTime> {
        let (start, before) = stretch.start?;
        (self.named && before > stretch.offset).then(|| before.to_datetime(start))
    }

    /// Whether the clock jumped over a named time when this stretch began.
    fn jumped(&self, stretch: &Stretch) -> bool {
        let Some((start, before)) = stretch.start else { return false };
        if !self.named || before >= stretch.offset {
            return false;
        }
        let (gone, there) = (before.to_datetime(start), stretch.offset.to_datetime(start));
        self.cron.find_next_occurrence(&gone, true).is_ok_and(|time| time < there)
    }
}

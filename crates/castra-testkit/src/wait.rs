//! Waiting for conditions, with a name for what is waited for. Never for a time.

use std::time::{Duration, Instant};

/// For whatever should be there at once on an idle machine; this one may be shared by other tests.
pub const DEADLINE: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(20);

/// Returns when `condition` holds.
///
/// # Panics
/// With `what` when it does not within `deadline`.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool, deadline: Duration) {
    wait_for(what, || condition().then_some(()), deadline);
}

/// The first value that `look` finds.
///
/// # Panics
/// With `what` when there is none within `deadline`.
#[track_caller]
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>, deadline: Duration) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited {deadline:?} in vain for {what}");
        std::thread::sleep(POLL);
    }
}

//! Waits for the next firing of a schedule, or the end of a launch block, and has it seen to. The one place where tasks
//! wait for a clock.

use crate::engine::now;
use crate::supervisor::Supervisor;
use castra_proto::Timestamp;
use std::time::Duration;
use tracing::warn;

/// The longest sleep: the wall clock may be set, and a sleep does not notice.
const LONGEST: Duration = Duration::from_secs(60);
/// Before another try at what could not be read or written.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// For as long as the supervisor lives.
pub(crate) async fn keep(supervisor: Supervisor) {
    let engine = supervisor.engine.clone();
    let mut closing = engine.closing.subscribe();
    let work = async {
        loop {
            let sleep = match supervisor.see_to_plans(now()).await {
                Ok(next) => until(next, now()),
                Err(error) => {
                    warn!(%error, "a schedule could not be seen to; it is tried again");
                    TRY_AGAIN
                }
            };
            tokio::select! {
                () = tokio::time::sleep(sleep) => {}
                () = engine.tasks.clock.notified() => {}
            }
        }
    };
    tokio::select! {
        () = work => {}
        _ = closing.wait_for(|closing| *closing) => {}
    }
}

fn until(next: Option<Timestamp>, now: Timestamp) -> Duration {
    let Some(next) = next else { return LONGEST };
    let left = Duration::from_micros(u64::try_from(next.0.saturating_sub(now.0)).unwrap_or(0));
    // A sleep ends on a whole millisecond, perhaps the one before.
    (left + Duration::from_millis(1)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_sleeps_until_the_next_one_and_never_for_long() {
        let at = |s: i64| Timestamp(s * 1_000_000);
        assert_eq!(until(None, at(0)), LONGEST);
        assert_eq!(until(Some(at(5)), at(0)), Duration::from_millis(5001));
        assert_eq!(until(Some(at(500)), at(0)), LONGEST);
        // What is due already is looked at at once, and not in a busy loop.
        assert_eq!(until(Some(at(0)), at(9)), Duration::from_millis(1));
    }
}

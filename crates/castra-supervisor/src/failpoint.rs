//! Places where a test may kill this process. Compiled to nothing without the feature `failpoints`.

/// Kills the process here when the environment says so: `CASTRA_FAILPOINT=name` or `name:nth`.
macro_rules! failpoint {
    ($name:literal) => {
        #[cfg(feature = "failpoints")]
        $crate::failpoint::hit($name);
    };
}
pub(crate) use failpoint;

#[cfg(feature = "failpoints")]
pub(crate) fn hit(name: &str) {
    use std::sync::atomic::{AtomicU32, Ordering};
    static HITS: AtomicU32 = AtomicU32::new(0);
    let Ok(wanted) = std::env::var("CASTRA_FAILPOINT") else { return };
    let (place, nth) = wanted.split_once(':').unwrap_or((&wanted, "1"));
    if place == name && HITS.fetch_add(1, Ordering::SeqCst) + 1 == nth.parse().unwrap_or(1) {
        // As sudden as `kill -9`: no destructor runs.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

/// Microseconds by which the wall clock is taken to be ahead: `CASTRA_CLOCK_AHEAD_S`, for nights that a test cannot wait
/// for.
#[cfg(feature = "failpoints")]
pub(crate) fn clock_ahead() -> i64 {
    static AHEAD: std::sync::LazyLock<i64> = std::sync::LazyLock::new(|| {
        let seconds = std::env::var("CASTRA_CLOCK_AHEAD_S").ok().and_then(|text| text.parse::<i64>().ok());
        seconds.unwrap_or(0).saturating_mul(1_000_000)
    });
    *AHEAD
}

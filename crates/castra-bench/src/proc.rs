//! What the kernel says of processes: CPU, memory, threads. Refuses to know whose they are.

use anyhow::{Context as _, Result};
use std::collections::BTreeMap;
use std::fs;

/// The length of a tick of `/proc/<pid>/stat`, in µs: `USER_HZ` is 100 on every architecture of Linux.
const TICK_US: f64 = 10_000.0;

/// User and system time of a process with its threads, those that have ended too. µs, in ticks of 10 ms.
pub(crate) fn cpu_us(pid: i32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let Some((_, fields)) = text.rsplit_once(") ") else { return 0.0 };
    let number =
        |n: usize| fields.split(' ').nth(n).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (number(11) + number(12)) * TICK_US
}

/// What each thread of these processes has run, to the nanosecond: for what hardly costs anything.
pub(crate) fn threads_ns(pids: &[i32]) -> BTreeMap<(i32, String), u64> {
    let mut found = BTreeMap::new();
    for pid in pids {
        for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            if let Some(ran) = text.split(' ').next().and_then(|ran| ran.parse().ok()) {
                found.insert((*pid, task.file_name().to_string_lossy().into_owned()), ran);
            }
        }
    }
    found
}

/// Of the threads that are there at both times, and of those that came. µs.
pub(crate) fn ran_us(before: &BTreeMap<(i32, String), u64>, after: &BTreeMap<(i32, String), u64>) -> f64 {
    let ran = |(thread, now): (_, &u64)| now.saturating_sub(before.get(thread).copied().unwrap_or(0));
    after.iter().map(ran).sum::<u64>() as f64 / 1000.0
}

pub(crate) fn all(pids: &[i32], of: fn(i32) -> f64) -> f64 {
    pids.iter().map(|pid| of(*pid)).sum()
}

/// A field of `/proc/<pid>/status`: kB, or a count.
pub(crate) fn status(pid: i32, name: &str) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let value = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    value.with_context(|| format!("{name} of process {pid}"))
}

/// Resident memory, MB (10^6 bytes).
pub(crate) fn rss_mb(pid: i32) -> Result<f64> {
    Ok(status(pid, "VmRSS")? * 1024.0 / 1e6)
}

/// The most that was resident since [`forget_peak`], MB.
pub(crate) fn peak_mb(pid: i32) -> Result<f64> {
    Ok(status(pid, "VmHWM")? * 1024.0 / 1e6)
}

pub(crate) fn forget_peak(pid: i32) -> Result<()> {
    // proc(5): 5 resets the peak resident set size.
    fs::write(format!("/proc/{pid}/clear_refs"), "5").with_context(|| format!("the peak of process {pid}"))
}

/// Bytes that the process has given to the file system.
pub(crate) fn written(pid: i32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|value| value.parse().ok()).unwrap_or(0.0)
}

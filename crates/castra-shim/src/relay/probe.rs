//! What a host is: identity, means, and which programs it has.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use castra_proto::shim::relay::{Probe, RelayError, Root};
use rustix::fs::statvfs;
use rustix::system::uname;
use uuid::Uuid;

use super::beneath::{failed, failed_io, open_root};
use super::files::{put_file, read_small};
use super::start::scope_runner;
use crate::{BUILD, procs};

/// Looked up in PATH.
const PROGRAMS: &[&str] =
    &["bwrap", "claude", "npm", "node", "git", "tmux", "curl", "unshare", "slirp4netns"];

/// A machine id of castra's own, where the system has none.
const MACHINE_ID: &str = "machine-id";

pub(crate) fn probe(home: &Path) -> Result<Probe, RelayError> {
    let shown = home.to_string_lossy();
    let disk = statvfs(home).map_err(|e| failed("statvfs", &shown, e))?;
    let name = uname();
    let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".to_owned());
    let mut programs = BTreeMap::new();
    for program in PROGRAMS {
        if let Some(found) = path.split(':').map(|dir| Path::new(dir).join(program)).find(|p| executable(p)) {
            programs.insert((*program).to_owned(), found.to_string_lossy().into_owned());
        }
    }
    Ok(Probe {
        machine_id: machine_id(home)?,
        boot_id: procs::boot_id(),
        hostname: name.nodename().to_string_lossy().into_owned(),
        kernel: name.release().to_string_lossy().into_owned(),
        arch: name.machine().to_string_lossy().into_owned(),
        cores: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
        memory_bytes: memory().unwrap_or(0),
        uid: rustix::process::geteuid().as_raw(),
        home: std::path::absolute(home)
            .map_err(|e| failed_io("home", &shown, &e))?
            .to_string_lossy()
            .into_owned(),
        user_home: std::env::var("HOME").unwrap_or_default(),
        disk_free: disk.f_bavail.saturating_mul(disk.f_frsize),
        programs,
        scope: scope_runner().is_some(),
        wmem_max: number("/proc/sys/net/core/wmem_max"),
        build: BUILD.to_owned(),
    })
}

fn executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

fn number(path: &str) -> u64 {
    std::fs::read_to_string(path).ok().and_then(|t| t.trim().parse().ok()).unwrap_or(0)
}

fn memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|l| l.starts_with("MemTotal:"))?;
    Some(line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

/// Containers often share or lack `/etc/machine-id`; one that castra made is as good.
fn machine_id(home: &Path) -> Result<String, RelayError> {
    let system = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    if let Ok(id) = Uuid::parse_str(system.trim()) {
        return Ok(id.simple().to_string());
    }
    let root = open_root(home, &Root::Home)?;
    let kept = |text: Vec<u8>| Uuid::parse_str(std::str::from_utf8(&text).ok()?.trim()).ok();
    if let Some(id) = read_small(&root, MACHINE_ID).and_then(kept) {
        return Ok(id.simple().to_string());
    }
    let id = Uuid::new_v4().simple().to_string();
    put_file(std::os::fd::AsFd::as_fd(&root), MACHINE_ID, 0o600, true, id.as_bytes())
        .map_err(|e| failed_io("put", MACHINE_ID, &e))?;
    Ok(id)
}

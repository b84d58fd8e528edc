//! Files that claude writes beside its output, tailed into the log: which, since when, and how far.
//!
//! Bytes only: no line is looked for and no JSON is read. What a state file names is whatever stands in it
//! between double quotes. inotify tells of changes; a host that has none left is looked at every half second.

use std::collections::HashSet;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use castra_proto::shim::relay::Root;
use castra_proto::shim::{How, MIN_NAMED, TailRule, Which};
use rustix::fs::{Dir, FileType, Mode, OFlags};

use crate::log::Log;
use crate::relay::beneath::{DIR, open_beneath, open_root};

mod files;
mod watch;

use files::{Files, Found};
use watch::{Change, Watch};

/// Without inotify.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Entries of one directory that are looked at.
const MAX_ENTRIES: usize = 100_000;
/// Names that state files may admit, and the longest.
const MAX_NAMES: usize = 4096;
const MAX_NAME: usize = 128;

/// A rule and its root, open since before claude was there.
pub(crate) struct Rule {
    pub(crate) rule: TailRule,
    pub(crate) root: OwnedFd,
}

/// A directory on the way to, or below, a rule's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) rule: usize,
    /// Below the rule's root.
    pub(crate) path: String,
    /// 0 is the rule's path itself, above it is negative.
    level: i32,
}

pub(crate) struct Tail {
    rules: Vec<Rule>,
    watch: Watch,
    files: Files,
    /// Numbers of claude, in every pid namespace it is in; empty before it is started.
    pids: Vec<String>,
    named: HashSet<String>,
    look: Option<Instant>,
}

impl Tail {
    /// Looks at what is there, before claude is started. No rules, no cost.
    pub(crate) fn open(rules: &[TailRule]) -> io::Result<Option<Tail>> {
        if rules.is_empty() {
            return Ok(None);
        }
        let open = |rule: &TailRule| {
            let root = open_root(Path::new("/"), &Root::Dir(rule.dir.clone()))
                .map_err(|e| io::Error::from_raw_os_error(e.errno().unwrap_or(libc::ENOENT)))?;
            Ok(Rule { rule: rule.clone(), root })
        };
        let mut tail = Tail {
            rules: rules.iter().map(open).collect::<io::Result<_>>()?,
            watch: Watch::open(),
            files: Files::default(),
            pids: Vec::new(),
            named: HashSet::new(),
            look: None,
        };
        tail.look_everywhere(true);
        tail.set_timer(Instant::now());
        Ok(Some(tail))
    }

    /// claude is there, under these numbers.
    pub(crate) fn claude_is(&mut self, pids: Vec<String>) {
        self.pids = pids;
        self.look_everywhere(false);
    }

    /// Readable when there may be [`Tail::changes`].
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.watch.fd()
    }

    /// When to look without being told to.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.look
    }

    /// Something is there that could be read at once.
    pub(crate) fn is_behind(&self) -> bool {
        self.files.is_behind()
    }

    pub(crate) fn tick(&mut self, now: Instant) {
        if self.look.is_some_and(|at| now >= at) {
            self.look_again();
            self.set_timer(now);
        }
    }

    fn set_timer(&mut self, now: Instant) {
        self.look = self.watch.is_incomplete().then(|| now + LOOK_EVERY);
    }

    /// Takes what inotify has to tell.
    pub(crate) fn changes(&mut self) {
        for change in self.watch.changes() {
            match change {
                Change::In { places, name, is_dir } => {
                    for place in places {
                        self.found(&place, &name, is_dir, false);
                    }
                }
                Change::Unknown => self.look_again(),
            }
        }
        self.set_timer(Instant::now());
    }

    /// Looks at every place and every file anew: what was missed, and the very end.
    pub(crate) fn look_again(&mut self) {
        self.look_everywhere(false);
        self.files.all_behind();
    }

    /// Appends what the files have; bounded, see [`Tail::is_behind`]. An error is the log's: it is full or
    /// broken, nothing of the failed piece is in it, and the next call goes on there.
    pub(crate) fn pump(&mut self, log: &mut Log) -> io::Result<()> {
        let mut snapshots = Vec::new();
        let pumped = self.files.pump(&self.rules, log, &mut snapshots);
        let mut news = false;
        for snapshot in &snapshots {
            for name in names(snapshot) {
                if self.named.len() < MAX_NAMES {
                    news |= self.named.insert(name.to_owned());
                }
            }
        }
        if news {
            self.look_everywhere(false);
        }
        pumped
    }

    fn look_everywhere(&mut self, first: bool) {
        for rule in 0..self.rules.len() {
            let level = match self.rules[rule].rule.path.as_str() {
                "" => 0,
                path => -(path.split('/').count() as i32),
            };
            self.visit(Place { rule, path: String::new(), level }, first);
        }
    }

    fn visit(&mut self, place: Place, first: bool) {
        let Ok(dir) = open_beneath(&self.rules[place.rule].root, &place.path, DIR, Mode::empty()) else {
            return;
        };
        // Before it is read, so that what comes meanwhile is told.
        if !self.watch.add(&dir, &place) {
            self.files.cut(place.rule, &place.path);
            return;
        }
        let Ok(entries) = Dir::new(dir) else { return };
        let mut names: Vec<(String, bool)> = Vec::new();
        for entry in entries.take(MAX_ENTRIES).flatten() {
            let Ok(name) = entry.file_name().to_str() else { continue };
            match entry.file_type() {
                FileType::Directory if !matches!(name, "." | "..") => names.push((name.to_owned(), true)),
                FileType::RegularFile => names.push((name.to_owned(), false)),
                // Some file systems do not say; opening finds out.
                FileType::Unknown => names.extend([(name.to_owned(), true), (name.to_owned(), false)]),
                _ => (),
            }
        }
        // The order of streams does not depend on the file system.
        names.sort_unstable();
        for (name, is_dir) in names {
            self.found(&place, &name, is_dir, first);
        }
    }

    /// A name in a place: appeared, changed or gone.
    fn found(&mut self, place: &Place, name: &str, is_dir: bool, first: bool) {
        let rule = &self.rules[place.rule].rule;
        let path = if place.path.is_empty() { name.to_owned() } else { format!("{}/{name}", place.path) };
        if place.level < 0 {
            let step = rule.path.split('/').nth_back((-1 - place.level) as usize);
            if is_dir && step == Some(name) {
                self.visit(Place { rule: place.rule, path, level: place.level + 1 }, first);
            }
            return;
        }
        let below = path.get(rule.path.len()..).unwrap_or_default().trim_start_matches('/');
        if !(is_dir || name.ends_with(&rule.suffix)) || !self.admits(rule, below, first) {
            return;
        }
        if !is_dir {
            self.files.touch(Found { rule: place.rule, path: below, first }, &self.rules);
        } else if place.level < i32::from(rule.depth) {
            self.visit(Place { rule: place.rule, path, level: place.level + 1 }, first);
        }
    }

    fn admits(&self, rule: &TailRule, below: &str, first: bool) -> bool {
        let name = below.split('/').next().unwrap_or(below);
        let stem = name.strip_suffix(rule.suffix.as_str()).unwrap_or(name);
        match &rule.which {
            Which::All => true,
            // What has claude's number before claude is there is an earlier process's: noted as it is,
            // and news only when it changes.
            Which::Pid => (first && rule.how == How::Snapshot) || self.pids.iter().any(|pid| pid == stem),
            Which::Named(names) => names.iter().any(|n| n == stem) || self.named.contains(stem),
        }
    }
}

/// What stands between double quotes and could be the name of a file.
fn names(snapshot: &[u8]) -> impl Iterator<Item = &str> {
    let plain = |part: &&[u8]| {
        (MIN_NAMED..=MAX_NAME).contains(&part.len())
            && part.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    snapshot.split(|&b| b == b'"').filter(plain).filter_map(|part| std::str::from_utf8(part).ok())
}

/// Opens a tailed file for reading: a pipe that bears its name must not stop the loop.
pub(crate) const FILE: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

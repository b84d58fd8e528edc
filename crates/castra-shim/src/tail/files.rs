//! The tailed files: which content each is at, how much of it is in the log, and which stream carries it.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use castra_proto::shim::{How, MAX_RECORD, Note, Stream, Which};
use rustix::fs::{AtFlags, FileType, Mode, StatxFlags, statx};

use super::{FILE, Rule};
use crate::log::Log;
use crate::relay::beneath::open_beneath;

/// Files of one run.
const MAX_FILES: usize = 4096;
/// Bytes of one file: a sparse file is long at no cost to whoever made it.
const MAX_FILE: u64 = 1 << 30;
/// Streams that files have to themselves; with more files than that they are given away and back.
const STREAMS: usize = 240;
/// Records per file and turn of the loop.
const BURST: usize = 8;
/// Paths that were cut and are waiting to be said.
const MAX_CUTS: usize = 16;

/// Whether it is the same file: a number alone is used again at once by some file systems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    dev: (u32, u32),
    ino: u64,
    born: Option<(i64, u32)>,
}

/// A file that a rule admits.
pub(crate) struct Found<'a> {
    pub(crate) rule: usize,
    /// Below the rule's path.
    pub(crate) path: &'a str,
    /// There before claude was.
    pub(crate) first: bool,
}

struct Tailed {
    rule: usize,
    path: String,
    identity: Option<Identity>,
    /// Named so in the log; changes with the content's identity.
    id: Option<u32>,
    /// Bytes that are in the log, or were skipped.
    pos: u64,
    stream: Option<u8>,
    /// Hash of the last snapshot.
    last: Option<u64>,
    /// Of an earlier process until claude is known to write it.
    waits: bool,
    cut: bool,
    used: u64,
}

#[derive(Default)]
pub(crate) struct Files {
    list: Vec<Tailed>,
    by_path: HashMap<(usize, String), usize>,
    behind: BTreeSet<usize>,
    /// Index of the file that has it.
    streams: Vec<usize>,
    next_id: u32,
    turns: u64,
    cuts: Vec<(usize, String, u64)>,
    full: bool,
    buf: Vec<u8>,
}

impl Files {
    pub(crate) fn is_behind(&self) -> bool {
        !self.behind.is_empty() || !self.cuts.is_empty()
    }

    pub(crate) fn all_behind(&mut self) {
        let awake = (0..self.list.len()).filter(|&index| !self.list[index].waits);
        self.behind = awake.collect();
    }

    /// A path is too much; said in the log when there is a turn.
    pub(crate) fn cut(&mut self, rule: usize, path: &str) {
        if self.cuts.len() < MAX_CUTS {
            self.cuts.push((rule, path.to_owned(), 0));
        }
    }

    /// Something is new about this file.
    pub(crate) fn touch(&mut self, found: Found<'_>, rules: &[Rule]) {
        let key = (found.rule, found.path.to_owned());
        if let Some(&index) = self.by_path.get(&key) {
            self.list[index].waits = found.first && self.list[index].waits;
            self.behind.insert(index);
            return;
        }
        if self.list.len() >= MAX_FILES {
            if !std::mem::replace(&mut self.full, true) {
                self.cut(found.rule, found.path);
            }
            return;
        }
        let mut tailed = Tailed::new(found.rule, key.1.clone());
        if found.first {
            tailed.begin(&rules[found.rule]);
        }
        let index = self.list.len();
        if !tailed.waits {
            self.behind.insert(index);
        }
        self.by_path.insert(key, index);
        self.list.push(tailed);
    }

    /// Appends a turn's worth of every file that is behind. Snapshots are also handed to `snapshots`.
    pub(crate) fn pump(
        &mut self,
        rules: &[Rule],
        log: &mut Log,
        snapshots: &mut Vec<Vec<u8>>,
    ) -> io::Result<()> {
        while let Some((rule, path, at)) = self.cuts.first().cloned() {
            log.note(&Note::FileCut { rule: rule as u8, path, at })?;
            self.cuts.remove(0);
        }
        self.turns += 1;
        let mut buf = std::mem::take(&mut self.buf);
        let mut result = Ok(());
        for index in self.behind.iter().copied().collect::<Vec<_>>() {
            let rule = &rules[self.list[index].rule];
            let pumped = match rule.rule.how {
                How::Append => self.append(index, rule, log, &mut buf),
                How::Snapshot => self.snapshot(index, rule, log, &mut buf, snapshots),
            };
            match pumped {
                Ok(true) => (),
                Ok(false) => drop(self.behind.remove(&index)),
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        // An idle tail keeps nothing.
        if !self.behind.is_empty() {
            self.buf = buf;
        }
        result
    }

    /// Whether there is more. Errors are the log's alone.
    fn append(&mut self, index: usize, rule: &Rule, log: &mut Log, buf: &mut Vec<u8>) -> io::Result<bool> {
        let file = &mut self.list[index];
        let Some((open, identity, size)) = open(rule, &file.path) else { return Ok(false) };
        if file.identity.is_some_and(|known| known != identity) || size < file.pos {
            // Replaced or cut short: another content under the same name.
            (file.pos, file.id, file.stream, file.cut) = (0, None, None, false);
        } else if file.cut {
            return Ok(false);
        }
        file.identity = Some(identity);
        if size <= file.pos {
            return Ok(false);
        }
        let stream = self.bind(index, log)?;
        for _ in 0..BURST {
            let file = &mut self.list[index];
            if file.pos >= MAX_FILE {
                file.cut = true;
                self.cuts.push((file.rule, file.path.clone(), file.pos));
                return Ok(false);
            }
            buf.resize(MAX_RECORD, 0);
            let read = match open.read_at(buf, file.pos) {
                Ok(0) => return Ok(false),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // Not ours to repair: the next change tries again.
                Err(_) => return Ok(false),
            };
            log.append(Stream::File(stream), &buf[..read])?;
            file.pos += read as u64;
        }
        Ok(true)
    }

    fn snapshot(
        &mut self,
        index: usize,
        rule: &Rule,
        log: &mut Log,
        buf: &mut Vec<u8>,
        snapshots: &mut Vec<Vec<u8>>,
    ) -> io::Result<bool> {
        let file = &self.list[index];
        match read_whole(rule, &file.path, buf) {
            Whole::Gone => buf.clear(),
            Whole::Unusable => return Ok(false),
            Whole::Read => (),
        }
        let hash = hash(buf);
        let known = file.last;
        // Never seen and gone again: nothing to say.
        if known == Some(hash) || (known.is_none() && buf.is_empty()) {
            return Ok(false);
        }
        let stream = self.bind(index, log)?;
        log.append(Stream::File(stream), buf)?;
        self.list[index].last = Some(hash);
        if !buf.is_empty() {
            snapshots.push(buf.clone());
        }
        Ok(false)
    }

    /// The file's stream, said in the log when it is a new one or the content is.
    fn bind(&mut self, index: usize, log: &mut Log) -> io::Result<u8> {
        self.list[index].used = self.turns;
        if let Some(stream) = self.list[index].stream {
            return Ok(stream);
        }
        let own = self.streams.iter().position(|&i| i == index);
        let stream = match own {
            Some(own) => own,
            None if self.streams.len() < STREAMS => self.streams.len(),
            // The one that has been silent for longest.
            None => (0..STREAMS).min_by_key(|&s| self.list[self.streams[s]].used).unwrap_or(0),
        };
        let file = &self.list[index];
        let id = file.id.unwrap_or(self.next_id);
        let code = stream as u8;
        log.note(&Note::File {
            stream: code,
            file: id,
            rule: file.rule as u8,
            path: file.path.clone(),
            at: file.pos,
            offset: log.offset(Stream::File(code)),
        })?;
        self.next_id = self.next_id.max(id + 1);
        match self.streams.get(stream).copied() {
            Some(other) if other != index => self.list[other].stream = None,
            Some(_) => (),
            None => self.streams.push(index),
        }
        self.streams[stream] = index;
        let file = &mut self.list[index];
        (file.id, file.stream) = (Some(id), Some(code));
        Ok(code)
    }
}

impl Tailed {
    fn new(rule: usize, path: String) -> Tailed {
        Tailed {
            rule,
            path,
            identity: None,
            id: None,
            pos: 0,
            stream: None,
            last: None,
            waits: false,
            cut: false,
            used: 0,
        }
    }

    /// A file that was there first: how much of it is no news.
    fn begin(&mut self, rule: &Rule) {
        match rule.rule.how {
            How::Append => {
                let Some((_, identity, size)) = open(rule, &self.path) else { return };
                let known = rule.rule.known.get(&self.path).copied();
                self.identity = Some(identity);
                self.pos = known.unwrap_or(if rule.rule.skip_existing { size } else { 0 });
            }
            How::Snapshot => {
                self.waits = rule.rule.which == Which::Pid;
                let mut buf = Vec::new();
                if (self.waits || rule.rule.skip_existing)
                    && matches!(read_whole(rule, &self.path, &mut buf), Whole::Read)
                {
                    self.last = Some(hash(&buf));
                }
            }
        }
    }
}

/// The file, who it is, and its length; `None` for whatever is no plain file.
fn open(rule: &Rule, path: &str) -> Option<(File, Identity, u64)> {
    let rule_path = rule.rule.path.as_str();
    let full = if rule_path.is_empty() { path.to_owned() } else { format!("{rule_path}/{path}") };
    let fd = open_beneath(&rule.root, &full, FILE, Mode::empty()).ok()?;
    let mask = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    let stat = statx(&fd, c"", AtFlags::EMPTY_PATH, mask).ok()?;
    if FileType::from_raw_mode(stat.stx_mode.into()) != FileType::RegularFile {
        return None;
    }
    let born = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
    let identity = Identity {
        dev: (stat.stx_dev_major, stat.stx_dev_minor),
        ino: stat.stx_ino,
        born: born.then_some((stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec)),
    };
    Some((File::from(fd), identity, stat.stx_size))
}

enum Whole {
    Read,
    Gone,
    /// Empty while it is being written anew, or too long for a record.
    Unusable,
}

fn read_whole(rule: &Rule, path: &str, buf: &mut Vec<u8>) -> Whole {
    let Some((file, _, size)) = open(rule, path) else { return Whole::Gone };
    if size == 0 || size > MAX_RECORD as u64 {
        return Whole::Unusable;
    }
    buf.clear();
    // It may grow meanwhile; then it is told again.
    match file.take(MAX_RECORD as u64).read_to_end(buf) {
        Ok(0) | Err(_) => Whole::Unusable,
        Ok(_) => Whole::Read,
    }
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

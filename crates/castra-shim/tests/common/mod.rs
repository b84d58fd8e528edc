//! A run directory, a real shim in it, and a plain blocking client. No relay, no tokio.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]
#![allow(dead_code, unreachable_pub)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use castra_proto::shim::{
    Answer, Command as Say, ExitCause, FRAME_HEADER, Hello, MAX_RECORDS, Meta, Note, ProcessId, Ready,
    Reason, Records, SEGMENT_HEADER, SegmentHeader, StartError, StartSpec, Status, Stream, TreeProof,
    VERSIONS, split_frame, split_record, write_parts,
};
use uuid::Uuid;

pub const DEADLINE: Duration = Duration::from_secs(20);

/// Waits for a fact; what it was is said when it does not come.
pub fn until<T>(what: &str, deadline: Duration, mut check: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < end, "not within {deadline:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn spec(argv: &[&str]) -> StartSpec {
    StartSpec {
        run_id: Uuid::new_v4(),
        session_id: "session-1".into(),
        run: 1,
        epoch: 1,
        argv: argv.iter().map(|s| s.to_string()).collect(),
        env: BTreeMap::from([("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())]),
        cwd: "/".into(),
        wrapped: false,
        memory_bytes: None,
        segment_bytes: None,
        pty: None,
        files: Vec::new(),
    }
}

pub fn sh(script: &str) -> StartSpec {
    spec(&["sh", "-c", script])
}

pub struct Run {
    pub dir: PathBuf,
    pub spec: StartSpec,
    pub meta: Meta,
    _temp: Option<tempfile::TempDir>,
}

pub fn start_raw(dir: &Path, spec: &StartSpec, env: &[(&str, &str)]) -> Result<Meta, StartError> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_castra-shim"))
        .args(["run", "--dir"])
        .arg(dir)
        .env_clear()
        .envs(env.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&serde_json::to_vec(spec).unwrap()).unwrap();
    let mut line = String::new();
    child.stdout.take().unwrap().read_to_string(&mut line).unwrap();
    child.wait().unwrap();
    match serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}")) {
        Ready::Started(meta) => Ok(meta),
        Ready::Failed(error) => Err(error),
    }
}

impl Run {
    pub fn start(spec: StartSpec) -> Run {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().to_path_buf();
        let mut run = Run::start_in(&dir, spec, &[]);
        run._temp = Some(temp);
        run
    }

    pub fn start_in(dir: &Path, spec: StartSpec, env: &[(&str, &str)]) -> Run {
        let meta = start_raw(dir, &spec, env).unwrap();
        Run { dir: dir.to_path_buf(), spec, meta, _temp: None }
    }

    pub fn dial(&self) -> std::io::Result<UnixStream> {
        let dir = std::fs::File::open(&self.dir)?;
        use std::os::fd::AsRawFd;
        UnixStream::connect(format!("/proc/self/fd/{}/shim.sock", dir.as_raw_fd()))
    }

    pub fn join(&self) -> Client {
        self.join_as(1).unwrap()
    }

    pub fn join_as(&self, epoch: u64) -> Result<Client, Reason> {
        let mut client = Client { socket: self.dial().unwrap(), buf: Vec::new() };
        client.say(Say::Hello(self.hello(epoch)));
        match client.next_raw() {
            Got::Hello(hello) => {
                assert_eq!(hello.run, self.spec.run_id);
                Ok(client)
            }
            Got::Refused(reason, _) => Err(reason),
            other => panic!("{other:?} for hello"),
        }
    }

    pub fn hello(&self, epoch: u64) -> Hello {
        Hello {
            versions: VERSIONS.to_vec(),
            build: "test".into(),
            run: self.spec.run_id,
            epoch,
            boot_id: Uuid::nil(),
            last: 0,
        }
    }

    /// Everything on disk: the segments must be whole, in order, and of this run.
    pub fn log(&self) -> Vec<Owned> {
        read_log(&self.dir, self.spec.run_id)
    }

    pub fn shim(&self) -> i32 {
        self.meta.shim.pid
    }

    /// Follows to the exit note, acknowledges, and sees the shim leave.
    pub fn finish(&self) -> Vec<Owned> {
        let mut client = self.join();
        let records = client.follow_to_exit(1);
        client.say(Say::Ack { seq: records.last().unwrap().seq });
        self.gone();
        records
    }

    /// Shim and guard are gone and the socket with them.
    pub fn gone(&self) {
        until("shim and guard end", DEADLINE, || {
            (!alive(self.meta.shim) && !alive(self.meta.guard)).then_some(())
        });
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // A failing test must not leave processes: the guard kills what is below it.
        if alive(self.meta.shim) {
            kill(self.meta.shim.pid, libc::SIGKILL);
            until("the guard ends", DEADLINE, || (!alive(self.meta.guard)).then_some(()));
        }
    }
}

pub fn read_log(dir: &Path, run: Uuid) -> Vec<Owned> {
    let mut names: Vec<_> = std::fs::read_dir(dir.join("log")).unwrap().map(|e| e.unwrap().path()).collect();
    names.sort();
    let mut all: Vec<Owned> = Vec::new();
    for name in names {
        let data = std::fs::read(&name).unwrap();
        // A live log may end in a segment, or a record, that is being written.
        let Ok(header) = SegmentHeader::decode(&data) else { break };
        assert_eq!(header.run, run);
        assert_eq!(header.first_seq, all.last().map_or(0, |r| r.seq) + 1, "{name:?}");
        for record in Records::expecting(&data[SEGMENT_HEADER..], header.first_seq) {
            let Ok(record) = record else { break };
            all.push(Owned::from(record));
        }
    }
    check_offsets(&all);
    all
}

pub fn check_offsets(records: &[Owned]) {
    let mut offsets = BTreeMap::new();
    let mut at = 0;
    for record in records {
        let offset = offsets.entry(record.stream).or_insert(record.offset);
        assert_eq!(*offset, record.offset, "record {}", record.seq);
        *offset += record.bytes.len() as u64;
        assert!(record.at >= at, "time goes on");
        at = record.at;
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned {
    pub seq: u64,
    pub at: u64,
    pub stream: Stream,
    pub offset: u64,
    pub bytes: Vec<u8>,
}

impl From<castra_proto::shim::Record<'_>> for Owned {
    fn from(r: castra_proto::shim::Record<'_>) -> Owned {
        Owned { seq: r.seq, at: r.at, stream: r.stream, offset: r.offset, bytes: r.bytes.to_vec() }
    }
}

pub fn bytes_of(records: &[Owned], stream: Stream) -> Vec<u8> {
    records.iter().filter(|r| r.stream == stream).flat_map(|r| r.bytes.iter().copied()).collect()
}

pub fn notes_of(records: &[Owned]) -> Vec<Note> {
    records.iter().filter(|r| r.stream == Stream::Shim).map(|r| Note::decode(&r.bytes).unwrap()).collect()
}

/// The exit note's facts: code, signal, tail_lost, tree, cause.
pub fn exit_of(records: &[Owned]) -> (Option<i32>, Option<i32>, bool, TreeProof, ExitCause) {
    match notes_of(records).last() {
        Some(&Note::Exit { code, signal, tail_lost, tree, cause }) => (code, signal, tail_lost, tree, cause),
        other => panic!("the last note is {other:?}"),
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Got {
    Hello(Hello),
    Records(Vec<Owned>),
    Written(Uuid, bool),
    Refused(Reason, Option<Uuid>),
    Status(Status),
    Unsupported(u8),
    Closed,
}

pub struct Client {
    pub socket: UnixStream,
    pub buf: Vec<u8>,
}

impl Client {
    pub fn say(&mut self, command: Say<'_>) {
        let mut out = Vec::new();
        command.encode(&mut out);
        let _ = self.socket.write_all(&out);
    }

    pub fn write(&mut self, id: Uuid, bytes: &[u8]) {
        for part in write_parts(id, bytes) {
            self.say(part);
        }
    }

    /// The next frame that is no `records` and no status, which may come unasked.
    pub fn answer(&mut self) -> Got {
        loop {
            match self.next_raw() {
                Got::Records(_) | Got::Status(_) => (),
                other => return other,
            }
        }
    }

    pub fn status(&mut self) -> Status {
        self.say(Say::Status);
        loop {
            match self.next_raw() {
                Got::Records(_) => (),
                Got::Status(status) => return status,
                other => panic!("{other:?} for status"),
            }
        }
    }

    pub fn next_raw(&mut self) -> Got {
        self.socket.set_read_timeout(Some(DEADLINE)).unwrap();
        loop {
            if let Some((frame, used)) = split_frame(&self.buf, MAX_RECORDS).unwrap() {
                let got = match Answer::decode(frame).unwrap() {
                    Answer::Hello(h) => Got::Hello(h),
                    Answer::Records(mut bytes) => {
                        let mut records = Vec::new();
                        while !bytes.is_empty() {
                            let (record, used) = split_record(bytes).unwrap();
                            records.push(Owned::from(record));
                            bytes = &bytes[used..];
                        }
                        Got::Records(records)
                    }
                    Answer::Written { input_id, duplicate } => Got::Written(input_id, duplicate),
                    Answer::Refused(r) => Got::Refused(r.reason, r.input_id),
                    Answer::Status(s) => Got::Status(s),
                    Answer::Unsupported { kind } => Got::Unsupported(kind),
                };
                self.buf.drain(..used);
                return got;
            }
            let have = self.buf.len();
            self.buf.resize(have + MAX_RECORDS + FRAME_HEADER, 0);
            let n = match self.socket.read(&mut self.buf[have..]) {
                Ok(n) => n,
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => 0,
                Err(e) => panic!("no answer: {e}"),
            };
            self.buf.truncate(have + n);
            if n == 0 {
                return Got::Closed;
            }
        }
    }

    /// Records from `from` until `stop` says so of one.
    pub fn follow_until(&mut self, from: u64, mut stop: impl FnMut(&Owned) -> bool) -> Vec<Owned> {
        self.say(Say::Follow { from });
        let mut all: Vec<Owned> = Vec::new();
        loop {
            match self.next_raw() {
                Got::Records(records) => {
                    for record in records {
                        assert_eq!(record.seq, all.last().map_or(from, |r| r.seq + 1));
                        let done = stop(&record);
                        all.push(record);
                        if done {
                            return all;
                        }
                    }
                }
                Got::Closed => panic!("closed after {:?}", all.last().map(|r| r.seq)),
                _ => (),
            }
        }
    }

    pub fn follow_to_exit(&mut self, from: u64) -> Vec<Owned> {
        self.follow_until(from, |r| {
            r.stream == Stream::Shim && matches!(Note::decode(&r.bytes), Ok(Note::Exit { .. }))
        })
    }

    /// Follows until stdout holds `text`.
    pub fn follow_text(&mut self, from: u64, text: &str) -> Vec<Owned> {
        let mut seen = Vec::new();
        self.follow_until(from, |r| {
            if r.stream == Stream::Out {
                seen.extend_from_slice(&r.bytes);
            }
            seen.windows(text.len()).any(|w| w == text.as_bytes())
        })
    }
}

pub fn stat(pid: i32) -> Option<(u8, i32, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let rest = &text[text.rfind(')')? + 2..];
    let fields: Vec<&str> = rest.split(' ').collect();
    Some((fields[0].as_bytes()[0], fields[1].parse().ok()?, fields[19].parse().ok()?))
}

pub fn alive(id: ProcessId) -> bool {
    stat(id.pid).is_some_and(|(state, _, start)| start == id.start && state != b'Z')
}

pub fn kill(pid: i32, signo: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::from_named_raw(signo).unwrap());
}

/// Live processes whose command line holds `mark`.
pub fn with_mark(mark: &str) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if pid != std::process::id() as i32
            && line.windows(mark.len()).any(|w| w == mark.as_bytes())
            && stat(pid).is_some_and(|(s, ..)| s != b'Z')
        {
            found.push(pid);
        }
    }
    found
}

/// A small file system of its own, so that it can be filled.
pub struct Tmpfs(pub tempfile::TempDir);

impl Tmpfs {
    pub fn new(bytes: usize) -> Option<Tmpfs> {
        let dir = tempfile::tempdir().unwrap();
        let options = std::ffi::CString::new(format!("size={bytes},mode=0700")).unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", options.to_str().unwrap(), "castra-test"])
            .arg(dir.path())
            .status()
            .is_ok_and(|s| s.success());
        mounted.then(|| Tmpfs(dir))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

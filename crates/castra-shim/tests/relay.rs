//! Where the two faces of the relay could differ from their contract: the pipe's own framing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use castra_proto::shim::relay::{
    HEADER, MAGIC, Probe, RelayError, Reply, Request, kind, pack, put_frame, unpack,
};

#[test]
fn frames_in_any_portions_and_the_end_of_stdin_ends_it() {
    let home = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_castra-shim"))
        .args(["relay", "--home"])
        .arg(home.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut frames = Vec::new();
    put_frame(&mut frames, kind::REQUEST, 7, &pack(&Request::Probe, &[]));
    put_frame(&mut frames, kind::REQUEST, 8, b"\x02\0\0\0{]");
    put_frame(&mut frames, 99, 9, b"from the future");
    put_frame(&mut frames, kind::DATA, 10, b"for no stream");
    let mut stdin = child.stdin.take().unwrap();
    for byte in frames {
        stdin.write_all(&[byte]).unwrap();
    }
    let mut stdout = child.stdout.take().unwrap();
    let mut magic = vec![0; MAGIC.len()];
    stdout.read_exact(&mut magic).unwrap();
    assert_eq!(magic, MAGIC);
    let mut answers = Vec::new();
    for _ in 0..2 {
        let mut header = [0; HEADER];
        stdout.read_exact(&mut header).unwrap();
        let (len, kind, id) = castra_proto::shim::relay::read_header(&header).unwrap();
        let mut payload = vec![0; len];
        stdout.read_exact(&mut payload).unwrap();
        answers.push((id, kind, payload));
    }
    answers.sort();
    let (id, kind, payload) = &answers[0];
    assert_eq!((*id, *kind), (7, kind::REPLY));
    let (Reply::Probe(probe), []) = unpack::<Reply>(payload).unwrap() else { panic!("no probe") };
    let Probe { home: shown, .. } = *probe;
    assert_eq!(shown, home.path().to_string_lossy());
    let (id, kind, payload) = &answers[1];
    assert_eq!((*id, *kind), (8, kind::ERROR));
    assert!(matches!(unpack::<RelayError>(payload).unwrap().0, RelayError::Malformed { .. }));
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

//! What a shim, its log and the relay put on disk and on sockets. Pure: no clock, no I/O, no policy.
//!
//! Frozen as v1 (design §2): shims outlive daemons, so a daemon drives shims two releases old.
//! Committed bytes in `fixtures/shim-v1/` hold every type in place.

mod frame;
mod note;
mod record;
pub mod relay;
mod spec;

pub use frame::{
    Answer, Command, FRAME_HEADER, Frame, FrameError, Hello, InputId, MAX_COMMAND, MAX_RECORDS, Reason,
    Refused, SignalTarget, Status, StatusExit, WRITE_PART, highest_common, split_frame, write_parts,
};
pub use note::{ExitCause, Note, NoteError, ProcessId, TreeProof};
pub use record::{
    BadRecord, BadSegment, LogError, MAX_RECORD, RECORD_HEADER, Record, Records, SEGMENT_HEADER,
    SEGMENT_VERSION, SegmentHeader, Stream, encode_record, record_header, split_record,
};
pub use spec::{
    DEFAULT_SEGMENT_BYTES, How, MAX_DEPTH, MAX_RULES, MAX_SPEC, MIN_NAMED, MIN_SEGMENT_BYTES, Meta, Pty,
    Ready, Reaped, SpecError, StartError, StartSpec, TailRule, Which, segment_name, segment_number,
};

/// Protocol versions this build speaks. v2 has the frames of v1: it exists so that skew is testable.
pub const VERSIONS: &[u32] = &[1];

/// Entry point for fuzzing the socket's two directions: any bytes, no panic, no unbounded work.
pub fn fuzz_frames(mut data: &[u8]) {
    while let Ok(Some((frame, used))) = split_frame(data, MAX_COMMAND) {
        if let Ok(command) = Command::decode(frame) {
            let mut again = Vec::new();
            command.encode(&mut again);
            assert!(again.len() >= FRAME_HEADER);
        }
        if let Ok(answer) = Answer::decode(frame) {
            let mut again = Vec::new();
            answer.encode(&mut again);
            assert!(again.len() >= FRAME_HEADER);
        }
        data = &data[used..];
    }
}

/// Entry point for fuzzing the log decoder: any bytes, no panic, and every byte is accounted for.
pub fn fuzz_records(data: &[u8]) {
    let body = match SegmentHeader::decode(data) {
        Ok(_) => &data[SEGMENT_HEADER..],
        Err(_) => data,
    };
    let mut records = Records::new(body);
    let mut seen = 0usize;
    let mut ended = false;
    for item in records.by_ref() {
        assert!(!ended, "an error ends the iteration");
        match item {
            Ok(record) => {
                seen += RECORD_HEADER + record.bytes.len();
                if record.stream == Stream::Shim {
                    let _ = Note::decode(record.bytes);
                }
            }
            Err(_) => ended = true,
        }
    }
    assert_eq!(seen, records.good());
    assert!(ended || seen == body.len());
}

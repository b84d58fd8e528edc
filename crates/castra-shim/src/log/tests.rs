//! The log alone: rolling, taking back, finding.

use castra_proto::shim::{MIN_SEGMENT_BYTES, Records};
use rustix::fs::open;

use super::*;

fn log() -> (tempfile::TempDir, Log) {
    let temp = tempfile::tempdir().unwrap();
    let dir = open(temp.path(), OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).unwrap();
    let id = LogId { run: Uuid::nil(), boot_id: Uuid::nil(), wall_ns: 1, boot_ns: 2 };
    let log = Log::create(&dir, id, MIN_SEGMENT_BYTES, Syncer::start().unwrap()).unwrap();
    (temp, log)
}

/// Every record as it is in the files: number, stream, offset, payload.
fn on_disk(temp: &tempfile::TempDir) -> Vec<(u64, Stream, u64, Vec<u8>)> {
    let mut names: Vec<_> =
        std::fs::read_dir(temp.path().join(LOG_DIR)).unwrap().map(|e| e.unwrap().path()).collect();
    names.sort();
    let mut all: Vec<(u64, Stream, u64, Vec<u8>)> = Vec::new();
    for name in names {
        let data = std::fs::read(name).unwrap();
        let header = SegmentHeader::decode(&data).unwrap();
        assert_eq!(header.first_seq, all.len() as u64 + 1);
        for record in Records::expecting(&data[SEGMENT_HEADER..], header.first_seq) {
            let record = record.unwrap();
            all.push((record.seq, record.stream, record.offset, record.bytes.to_vec()));
        }
    }
    all
}

#[test]
fn taking_back_leaves_no_trace_even_over_segments() {
    let (temp, mut log) = log();
    log.append(Stream::Out, b"kept").unwrap();
    let before = on_disk(&temp);
    for count in [0, 1, 3, 9] {
        let mark = log.mark();
        for _ in 0..count {
            log.append(Stream::In, &[7; MAX_RECORD]).unwrap();
        }
        log.take_back(&mark).unwrap();
        assert_eq!(on_disk(&temp), before, "{count}");
    }
    log.append(Stream::In, b"after").unwrap();
    log.append(Stream::Out, b"!").unwrap();
    let mut want = before;
    want.push((2, Stream::In, 0, b"after".to_vec()));
    want.push((3, Stream::Out, 4, b"!".to_vec()));
    assert_eq!(on_disk(&temp), want);
}

#[test]
fn an_ended_segment_gets_no_more_records() {
    let (temp, mut log) = log();
    log.append(Stream::Out, b"a").unwrap();
    log.end_segment();
    log.append(Stream::Out, b"b").unwrap();
    log.append(Stream::Out, b"c").unwrap();
    let sizes: Vec<u64> =
        (1..=2).map(|n| temp.path().join(LOG_DIR).join(segment_name(n)).metadata().unwrap().len()).collect();
    let record = RECORD_HEADER as u64 + 1;
    assert_eq!(sizes, [SEGMENT_HEADER as u64 + record, SEGMENT_HEADER as u64 + 2 * record]);
    assert_eq!(on_disk(&temp).len(), 3);
}

#[test]
fn every_number_is_found_where_it_begins() {
    let (temp, mut log) = log();
    for n in 0..400u32 {
        log.append(Stream::Out, &vec![n as u8; (n as usize * 37) % 9000]).unwrap();
    }
    let all = on_disk(&temp);
    let (mut scratch, mut buf) = (Vec::new(), Vec::new());
    for (seq, _, offset, _) in &all {
        let mut pos = log.find(*seq, &mut scratch).unwrap();
        log.read_records(&mut pos, 256 << 10, &mut buf).unwrap();
        let first = Records::expecting(&buf, *seq).next().unwrap().unwrap();
        assert_eq!((first.seq, first.offset), (*seq, *offset));
    }
    let mut end = log.find(401, &mut scratch).unwrap();
    assert_eq!(end, log.end());
    log.read_records(&mut end, 256 << 10, &mut buf).unwrap();
    assert!(buf.is_empty());
}

#[test]
fn reading_goes_through_all_segments_in_whole_records() {
    let (temp, mut log) = log();
    for n in 0..300u32 {
        log.append(Stream::Out, &vec![n as u8; (n as usize * 97) % 20_000]).unwrap();
    }
    let (mut pos, mut buf, mut read) =
        (Pos { segment: 1, at: SEGMENT_HEADER as u64 }, Vec::new(), Vec::new());
    loop {
        log.read_records(&mut pos, 100_000, &mut buf).unwrap();
        if buf.is_empty() {
            break;
        }
        let records = Records::new(&buf).map(|r| r.unwrap());
        read.extend(records.map(|r| (r.seq, r.stream, r.offset, r.bytes.to_vec())));
    }
    assert_eq!(read, on_disk(&temp));
}

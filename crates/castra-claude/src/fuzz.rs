//! The fuzz entry: any bytes, as any stream, cut anywhere. Refuses nothing; what must hold is checked here.
//!
//! Its corpus is `fuzz/corpus/stream`; a test feeds it, so that what was once found stays found.

use crate::line::{RecordIn, StreamIn};
use crate::{Decoded, Decoder};
use bytes::Bytes;

/// Decodes `data` whole and in pieces whose sizes its own bytes choose, and compares.
///
/// # Panics
/// Where the two differ, a byte of stdout is lost, or `json` is claimed of what is none.
pub fn fuzz_stream(data: &[u8]) {
    let whole = decode(data, &mut std::iter::repeat(data.len().max(1)));
    let pieces = decode(data, &mut data.iter().cycle().map(|byte| usize::from(*byte) + 1));
    assert_eq!(whole.len(), pieces.len(), "the number of lines depends on how they were cut");
    for (a, b) in whole.iter().zip(&pieces) {
        assert_eq!((&a.line, &a.kind, &a.data, &a.note), (&b.line, &b.kind, &b.data, &b.note));
        assert_eq!(a.fact, b.fact);
    }
    for line in &whole {
        let from = line.line.offset as usize;
        assert_eq!(data.get(from..from + line.data.len()), Some(&line.data[..]), "a line is its own bytes");
        let json = serde_json::from_slice::<&serde_json::value::RawValue>(&line.data).is_ok();
        assert_eq!(line.json, json, "{:?}", line.data);
    }
}

fn decode(data: &[u8], sizes: &mut dyn Iterator<Item = usize>) -> Vec<Decoded> {
    let mut decoder = Decoder::new();
    let (mut out, mut at, mut seq) = (Vec::new(), 0, 0);
    while at < data.len() {
        let end = data.len().min(at + sizes.next().unwrap_or(1));
        let (bytes, offset) = (Bytes::copy_from_slice(&data[at..end]), at as u64);
        (at, seq) = (end, seq + 1);
        decoder.step(RecordIn { seq, at: seq, stream: StreamIn::Out, offset, bytes }, &mut out);
    }
    decoder.finish(&mut out);
    assert_eq!(decoder.hold(), None);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_bytes_hold(data in proptest::collection::vec(any::<u8>(), 0..2000)) {
            fuzz_stream(&data);
        }

        #[test]
        fn near_misses_of_real_lines_hold(
            at in 0_usize..400,
            byte in any::<u8>(),
            line in proptest::sample::select(vec![
                r#"{"type":"stream_event","event":{"index":0,"delta":{"type":"text_delta","text":"a\u00e9"},"type":"content_block_delta"},"session_id":"7c588c89-c49a-52c0-adda-e19dfeab0de3","parent_tool_use_id":null}"#,
                r#"{"type":"control_request","request_id":"r","request":{"subtype":"can_use_tool","tool_name":"Bash","input":{"command":"ls"}}}"#,
                r#"{"type":"result","subtype":"success","is_error":false,"result":"x","usage":{"a":1.5e3}}"#,
                r#"{"type":"user","message":{"content":[{"type":"tool_result","tool_use_id":"t"}]},"isReplay":true}"#,
            ]),
        ) {
            let mut data = format!("{line}\n{line}").into_bytes();
            let at = at % data.len();
            data[at] = byte;
            fuzz_stream(&data);
        }
    }
}

//! Measures the decoder: `cargo run --release -p castra-claude --example decode_bench`. Prints µs per line.
#![allow(clippy::print_stdout)]

use bytes::Bytes;
use castra_claude::{Decoder, RecordIn, StreamIn};
use std::time::Instant;

fn main() {
    let start = r#"{"type":"stream_event","event":{"message":{"id":"m"},"type":"message_start"}}"#;
    let block = r#"{"type":"stream_event","event":{"index":0,"content_block":{"type":"text","text":""},"type":"content_block_start"}}"#;
    let delta = r#"{"type":"stream_event","event":{"index":0,"delta":{"type":"text_delta","text":"a few more words "},"type":"content_block_delta"},"session_id":"7c588c89-c49a-52c0-adda-e19dfeab0de3","parent_tool_use_id":null,"uuid":"1cd03e91-41d5-4451-9d6e-97b75bb1ddc2"}"#;
    let turn = include_str!("../corpus/2.1.197/tool_allow.out.jsonl");
    measure("text delta", &format!("{start}\n{block}\n"), &format!("{delta}\n"), 400_000);
    measure("recorded turn", "", turn, 20_000 * 36);
}

/// `lines` of `body` behind `head`, in records of 64 KiB.
fn measure(name: &str, head: &str, body: &str, lines: usize) {
    let per_body = body.lines().count();
    let mut text = head.to_owned();
    text.extend(std::iter::repeat_n(body, lines / per_body));
    let records: Vec<Bytes> = text.as_bytes().chunks(64 << 10).map(Bytes::copy_from_slice).collect();
    let mut decoder = Decoder::new();
    let (mut out, mut offset, mut events) = (Vec::new(), 0, 0);
    let began = Instant::now();
    for (number, bytes) in records.into_iter().enumerate() {
        let (seq, length) = (number as u64 + 1, bytes.len() as u64);
        decoder.step(RecordIn { seq, at: seq, stream: StreamIn::Out, offset, bytes }, &mut out);
        offset += length;
        events += out.len();
        out.clear();
    }
    let micros = began.elapsed().as_secs_f64() * 1e6 / lines as f64;
    println!(
        "{name}: {micros:.3} µs a line of {} bytes ({lines} lines, {events} events)",
        body.len() / per_body
    );
}

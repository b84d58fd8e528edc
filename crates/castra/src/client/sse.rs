//! `text/event-stream`, as castra's daemon writes it: `id`, `event`, `data`, comments. Pure.

/// One dispatched frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SseFrame {
    /// Where to continue behind it, as it was given; frames without one are state, not events.
    pub id: Option<String>,
    /// The event's name; unset for durable events.
    pub event: Option<String>,
    /// Several `data` lines are joined by newlines.
    pub data: Vec<u8>,
}

/// Takes bytes as they come, in whatever pieces, and gives frames.
#[derive(Debug, Default)]
pub struct SseParser {
    /// The unfinished line.
    line: Vec<u8>,
    id: Option<String>,
    event: Option<String>,
    data: Option<Vec<u8>>,
    /// The last byte was CR: a LF right behind it belongs to the same line end.
    after_cr: bool,
}

/// A line may be as long as the largest message that claude writes; beyond this it is not a line.
const MAX_FRAME: usize = 512 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of the event stream is larger than 512 MiB")]
pub struct TooLarge;

impl SseParser {
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<Vec<SseFrame>, TooLarge> {
        let mut frames = Vec::new();
        if self.after_cr && !bytes.is_empty() {
            self.after_cr = false;
            bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
        }
        while let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            self.line.extend_from_slice(&bytes[..end]);
            self.finish_line(&mut frames);
            let cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            if cr {
                self.after_cr = bytes.is_empty();
                bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
            }
        }
        self.line.extend_from_slice(bytes);
        if self.line.len() + self.data.as_ref().map_or(0, Vec::len) > MAX_FRAME {
            return Err(TooLarge);
        }
        Ok(frames)
    }

    fn finish_line(&mut self, frames: &mut Vec<SseFrame>) {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            let (id, event) = (self.id.take(), self.event.take());
            // Without data nothing is dispatched; that is the standard's rule for keep-alives too.
            frames.extend(self.data.take().map(|data| SseFrame { id, event, data }));
            return;
        }
        let (field, value) = match line.iter().position(|byte| *byte == b':') {
            Some(0) => return,
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (&line[..], &[][..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => match &mut self.data {
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
                none => *none = Some(value.to_vec()),
            },
            b"id" => self.id = String::from_utf8(value.to_vec()).ok(),
            b"event" => self.event = Some(String::from_utf8_lossy(value).into_owned()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(id: Option<&str>, event: Option<&str>, data: &str) -> SseFrame {
        SseFrame { id: id.map(String::from), event: event.map(String::from), data: data.as_bytes().to_vec() }
    }

    #[test]
    fn frames_come_out_the_same_however_the_bytes_are_cut() {
        let table: &[(&str, Vec<SseFrame>)] = &[
            ("id: 7\ndata: {\"a\":1}\n\n", vec![frame(Some("7"), None, "{\"a\":1}")]),
            ("event: partial\ndata: x\n\n", vec![frame(None, Some("partial"), "x")]),
            (": keep-alive\n\n", vec![]),
            ("id: 7\n\n", vec![]),
            ("data: a\ndata: b\n\n", vec![frame(None, None, "a\nb")]),
            ("data:a\ndata:  b\n\n", vec![frame(None, None, "a\n b")]),
            ("data\n\n", vec![frame(None, None, "")]),
            ("data: a: b\r\n\r\ndata: c\r\r", vec![frame(None, None, "a: b"), frame(None, None, "c")]),
            ("retry: 5\nid: 2.ab\ndata: é\n\n", vec![frame(Some("2.ab"), None, "é")]),
            ("id: 1\ndata: a\n\ndata: b\n\n", vec![frame(Some("1"), None, "a"), frame(None, None, "b")]),
            ("data: unfinished\n", vec![]),
        ];
        for (stream, expected) in table {
            for size in 1..=stream.len() {
                let mut parser = SseParser::default();
                let frames: Vec<_> =
                    stream.as_bytes().chunks(size).flat_map(|chunk| parser.push(chunk).unwrap()).collect();
                assert_eq!(&frames, expected, "{stream:?} in pieces of {size}");
            }
        }
    }
}

//! What is taken out of a terminal's bytes before a viewer's terminal sees them.
//!
//! Clipboard sequences (OSC 52) always: an agent's output neither reads nor writes a person's clipboard. Questions
//! to the terminal on demand: with several viewers each would answer, and the answers arrive as typed text. Fast:
//! text between control sequences is copied as it is.

/// A sequence that is longer is let through undecided; clipboard and questions are known far earlier.
const MAX_HELD: usize = 256;

/// The filter of one viewer's stream.
#[derive(Debug, Clone)]
pub struct Wash {
    questions: bool,
    state: State,
    /// The sequence that is not decided yet.
    held: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Text,
    /// After ESC, or after the first byte of a C1 control in UTF-8.
    Begin,
    Csi,
    /// OSC or DCS: held until it is decided.
    String,
    /// The same, decided.
    Passing,
    Dropping,
    /// The same, after an ESC that may end it.
    PassingEscape,
    DroppingEscape,
    StringEscape,
    /// The same, after a byte with which a C1 control may begin.
    PassingC1,
}

impl Wash {
    /// `questions`: whether this viewer's terminal may be asked.
    pub fn new(questions: bool) -> Wash {
        Wash { questions, state: State::Text, held: Vec::new() }
    }

    /// Appends to `out` what the viewer may see of `bytes`.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let mut rest = bytes;
        while let Some(&first) = rest.first() {
            if self.state == State::Text {
                let next = memchr::memchr3(0x1b, 0xc2, 0x05, rest).unwrap_or(rest.len());
                out.extend_from_slice(&rest[..next]);
                rest = &rest[next..];
                match rest.first() {
                    None => return,
                    Some(0x05) if !self.questions => (),
                    Some(0x05) => out.push(0x05),
                    Some(&byte) => {
                        self.held.push(byte);
                        self.state = State::Begin;
                    }
                }
                rest = &rest[1..];
                continue;
            }
            if matches!(self.state, State::Passing | State::Dropping) {
                // The content is long: look for what may end it.
                let end = rest.iter().position(|b| matches!(b, 0x07 | 0x18 | 0x1a | 0x1b | 0x9c | 0xc2));
                let skip = end.unwrap_or(rest.len());
                if self.state == State::Passing {
                    out.extend_from_slice(&rest[..skip]);
                }
                rest = &rest[skip..];
                let Some(&byte) = rest.first() else { return };
                self.step(byte, out);
                rest = &rest[1..];
                continue;
            }
            self.step(first, out);
            rest = &rest[1..];
        }
    }

    fn step(&mut self, byte: u8, out: &mut Vec<u8>) {
        match self.state {
            State::Text => out.push(byte),
            State::Begin => self.begin(byte, out),
            State::Csi => match byte {
                0x40..=0x7e => {
                    self.held.push(byte);
                    let question = !self.questions && is_question(params(&self.held));
                    self.decide(!question, State::Text, out);
                }
                0x1b | 0xc2 => self.again(byte, out),
                0x18 | 0x1a => {
                    self.held.push(byte);
                    self.decide(true, State::Text, out);
                }
                // Executed in the middle of a sequence; that it comes first makes no difference.
                0x00..0x20 => out.push(byte),
                _ => self.hold(byte, out),
            },
            State::String => match byte {
                0x07 | 0x18 | 0x1a => {
                    self.held.push(byte);
                    let keep = byte != 0x07 || self.keeps_string();
                    self.decide(keep, State::Text, out);
                }
                0x1b => {
                    self.state = State::StringEscape;
                }
                0x9c if self.held.last() == Some(&0xc2) => {
                    self.held.push(byte);
                    let keep = self.keeps_string();
                    self.decide(keep, State::Text, out);
                }
                // Another control ends the string too, and begins what it begins.
                0x80..=0x9f if self.held.last() == Some(&0xc2) => {
                    self.held.pop();
                    let keep = self.keeps_string();
                    self.begin_behind_string(keep, 0xc2, byte, out);
                }
                _ => {
                    self.hold(byte, out);
                    if self.state == State::String && is_clipboard(content(&self.held)) {
                        self.decide(false, State::Dropping, out);
                    }
                }
            },
            State::Passing | State::Dropping => {
                let passing = self.state == State::Passing;
                if passing && byte == 0xc2 {
                    self.state = State::PassingC1;
                    return;
                }
                // The ESC waits: it may begin something that is to be decided on.
                if passing && byte != 0x1b {
                    out.push(byte);
                }
                self.state = match byte {
                    0x1b if passing => State::PassingEscape,
                    0x1b => State::DroppingEscape,
                    0x07 | 0x18 | 0x1a => State::Text,
                    // The second byte of ST, C2 9C. Another character that ends in 9C does not occur in
                    // what is dropped: a clipboard is base64.
                    0x9c if !passing => State::Text,
                    _ => self.state,
                };
            }
            State::PassingC1 => match byte {
                0x80..=0x9b | 0x9d..=0x9f => self.begin_behind_string(true, 0xc2, byte, out),
                byte => {
                    out.push(0xc2);
                    match byte {
                        0xc2 => (),
                        0x1b => self.state = State::PassingEscape,
                        byte => {
                            out.push(byte);
                            let ends = matches!(byte, 0x07 | 0x18 | 0x1a | 0x9c);
                            self.state = if ends { State::Text } else { State::Passing };
                        }
                    }
                }
            },
            // An ESC ends the string, whatever follows it begins something new.
            State::StringEscape | State::PassingEscape | State::DroppingEscape => {
                let keep = match self.state {
                    State::StringEscape => self.keeps_string(),
                    state => state == State::PassingEscape,
                };
                if byte == b'\\' {
                    self.held.extend_from_slice(b"\x1b\\");
                    return self.decide(keep, State::Text, out);
                }
                self.begin_behind_string(keep, 0x1b, byte, out);
            }
        }
    }

    /// A string that ends only because something begins. If that is dropped, what follows must not become
    /// part of the string: it gets an end of its own.
    fn begin_behind_string(&mut self, keep: bool, first: u8, byte: u8, out: &mut Vec<u8>) {
        self.held.extend_from_slice(b"\x1b\\");
        self.decide(keep, State::Begin, out);
        self.held.push(first);
        self.begin(byte, out);
    }

    fn begin(&mut self, byte: u8, out: &mut Vec<u8>) {
        let c1 = self.held.first() == Some(&0xc2);
        if matches!(byte, 0x1b | 0xc2) {
            return self.again(byte, out);
        }
        self.held.push(byte);
        match (c1, byte) {
            (false, b'[') | (true, 0x9b) => self.state = State::Csi,
            (false, b']' | b'P') | (true, 0x9d | 0x90) => self.state = State::String,
            (false, b'Z') | (true, 0x9a) if !self.questions => self.decide(false, State::Text, out),
            // ESC with an intermediate has a final byte to come; harmless, and text to us.
            _ => self.decide(true, State::Text, out),
        }
    }

    /// The beginning of another sequence: what came before it has no effect, and must have none on what
    /// follows when this one is dropped.
    fn again(&mut self, byte: u8, out: &mut Vec<u8>) {
        self.decide(false, State::Begin, out);
        self.held.push(byte);
    }

    fn hold(&mut self, byte: u8, out: &mut Vec<u8>) {
        self.held.push(byte);
        if self.held.len() > MAX_HELD {
            let next = if self.state == State::String { State::Passing } else { State::Text };
            self.decide(true, next, out);
        }
    }

    fn decide(&mut self, keep: bool, next: State, out: &mut Vec<u8>) {
        if keep {
            out.extend_from_slice(&self.held);
        }
        self.held.clear();
        self.state = next;
    }

    fn keeps_string(&self) -> bool {
        !is_clipboard(content(&self.held)) && (self.questions || !asks(&self.held))
    }
}

/// Behind the introducer, which takes two bytes in either form.
fn content(held: &[u8]) -> &[u8] {
    held.get(2..).unwrap_or_default()
}

fn params(held: &[u8]) -> &[u8] {
    content(held)
}

fn is_dcs(held: &[u8]) -> bool {
    matches!(held, [0x1b, b'P', ..] | [0xc2, 0x90, ..])
}

/// `52;`, also as `052;`.
fn is_clipboard(content: &[u8]) -> bool {
    let digits = content.iter().position(|b| *b != b'0').map_or(content, |at| &content[at..]);
    digits.starts_with(b"52;") || digits == b"52\x07"
}

/// DA, DSR, CPR, XTVERSION, DECRQM, DECREQTPARM, kitty's flags, reports of windows.
fn is_question(sequence: &[u8]) -> bool {
    let Some((end, body)) = sequence.split_last() else { return false };
    match end {
        b'c' | b'x' => true,
        b'n' => !body.starts_with(b">"),
        b'q' => body.starts_with(b">"),
        b'p' => body.ends_with(b"$"),
        b'u' => body.starts_with(b"?"),
        b't' => matches!(
            body.split(|b| *b == b';').next(),
            Some(b"11" | b"13" | b"14" | b"15" | b"16" | b"18" | b"19" | b"20" | b"21")
        ),
        _ => false,
    }
}

/// Colours asked for with `?`; DECRQSS and XTGETTCAP.
fn asks(held: &[u8]) -> bool {
    let content = content(held);
    if is_dcs(held) {
        return content.starts_with(b"$q") || content.starts_with(b"+q");
    }
    let content = content.strip_suffix(b"\x07").unwrap_or(content);
    content.ends_with(b";?") || content.ends_with(b";?\xc2\x9c") || content.windows(3).any(|w| w == b";?;")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn washed(questions: bool, text: &[u8], size: usize) -> String {
        let (mut wash, mut out) = (Wash::new(questions), Vec::new());
        text.chunks(size).for_each(|part| wash.feed(part, &mut out));
        // What is not decided at the end is not shown.
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn clipboards_never_and_questions_on_demand() {
        const LONG: &str = "QUJD";
        let clipboard = format!("a\x1b]52;c;{}\x07b", LONG.repeat(1000));
        let table = [
            (clipboard.as_str(), "ab", "ab"),
            ("a\x1b]52;c;?\x1b\\b", "ab", "ab"),
            ("a\x1b]052;c;QQ==\u{9c}b", "ab", "ab"),
            ("a\u{9d}52;c;QQ==\u{9c}b", "ab", "ab"),
            ("a\x1b]52;c;QQ==\x1b[31mb", "a\x1b[31mb", "a\x1b[31mb"),
            ("a\x1b]52\x07b", "ab", "ab"),
            ("a\x1b]520;x\x07b", "a\x1b]520;x\x07b", "a\x1b]520;x\x07b"),
            ("\x1b[c\x1b[>c\x1b[=c\x1b[6n\x1b[?6n\x1b[>0q\x1b[?2026$p\x1b[?u\x1b[18t\x05\x1bZx", "x", "all"),
            ("\x1b]11;?\x07\x1b]10;?\x1b\\\x1b]4;1;?;2;?\x07\x1bP$qm\x1b\\\x1bP+q544e\x1b\\x", "x", "all"),
            ("\x1b]11;#fff\x07\x1b]0;why?\x07\x1b[2 q\x1b[>1u\x1b[22;0t\x1b[1;5p\x1b[>4;2m", "all", "all"),
            ("\x1b[?1049h\x1b[31;1mé界\x1b[0m\x1b(0q\x1b(B\x1b7\x1b8\u{9b}2J", "all", "all"),
            ("\x1b]8;;http://x/?a;b\x07link\x1b]8;;\x07", "all", "all"),
            ("\x1b_Gf=100;AAAA\x1b\\x", "all", "all"),
            (
                "a\x1b\x1b[31mb\x1b[3\x1b[1mc\x1b[3\x18d",
                "a\x1b[31mb\x1b[1mc\x1b[3\x18d",
                "a\x1b[31mb\x1b[1mc\x1b[3\x18d",
            ),
            // What is left must not become what was taken out.
            (
                "\x1b]\x1b]52;c;QQ==\x0752;c;QQ==\x07x",
                "\x1b]\x1b\\52;c;QQ==\x07x",
                "\x1b]\x1b\\52;c;QQ==\x07x",
            ),
            ("\x1b[\x1b[c1mx", "1mx", "\x1b[c1mx"),
            ("\x1b\u{9d}52;c;QQ==\x07x", "x", "x"),
            ("\x1b]0;t\u{9d}52;c;QQ==\x07x", "\x1b]0;t\x1b\\x", "\x1b]0;t\x1b\\x"),
            ("\x1b[3\n1mx", "\n\x1b[31mx", "\n\x1b[31mx"),
        ];
        for (text, without, with) in table {
            for size in [1, 2, 3, 7, 10_000] {
                let all = |want: &str| if want == "all" { text.to_owned() } else { want.to_owned() };
                assert_eq!(washed(false, text.as_bytes(), size), all(without), "{text:?} by {size}");
                assert_eq!(washed(true, text.as_bytes(), size), all(with), "{text:?} by {size}, asked");
            }
        }
        let hidden = format!("\x1b]0;{}\u{9d}52;c;QQ==\x07x", "t".repeat(1000));
        assert!(washed(false, hidden.as_bytes(), 100).ends_with("t\x1b\\x"));
        let title = format!("\x1b]0;{}é\u{a7}\x07x", "t".repeat(10_000));
        assert_eq!(washed(false, title.as_bytes(), 100), title, "what is long is let through");
    }

    proptest! {
        #[test]
        fn portions_do_not_matter_and_no_clipboard_comes_through(
            parts in prop::collection::vec(prop_oneof![
                Just(b"\x1b]52;".to_vec()), Just(b"\x1b".to_vec()), Just(b"\x07".to_vec()), Just(b"\x1b\\".to_vec()),
                Just(b"\x1bP".to_vec()), Just(b"\x1b[".to_vec()), Just(b"\x1b]".to_vec()), Just(b"52;".to_vec()),
                Just(b"\xc2\x9d".to_vec()), Just(b"\x18".to_vec()), prop::collection::vec(any::<u8>(), 0..4),
            ], 0..40),
            size in 1usize..5,
        ) {
            let bytes = parts.concat();
            let whole = washed(false, &bytes, bytes.len().max(1));
            prop_assert_eq!(&washed(false, &bytes, size), &whole);
            prop_assert!(!whole.contains("\x1b]52;") && !whole.contains("\u{9d}52;"), "{:?}", whole);
        }
    }
}

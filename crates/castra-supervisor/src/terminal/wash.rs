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
                let end = rest.iter().position(|b| matches!(b, 0x07 | 0x18 | 0x1a | 0x1b | 0x9c));
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
                0x1b => self.again(out),
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
                _ => {
                    self.hold(byte, out);
                    if self.state == State::String && is_clipboard(content(&self.held)) {
                        self.decide(false, State::Dropping, out);
                    }
                }
            },
            State::Passing | State::Dropping => {
                let passing = self.state == State::Passing;
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
                self.decide(keep, State::Begin, out);
                self.held.push(0x1b);
                self.begin(byte, out);
            }
        }
    }

    fn begin(&mut self, byte: u8, out: &mut Vec<u8>) {
        let c1 = self.held.first() == Some(&0xc2);
        if byte == 0x1b {
            return self.again(out);
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

    /// An ESC where none belongs: what came before it is over.
    fn again(&mut self, out: &mut Vec<u8>) {
        self.decide(true, State::Begin, out);
        self.held.push(0x1b);
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

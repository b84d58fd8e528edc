//! The key that leaves a terminal session: found in what a person types, however their terminal writes it. Pure.

/// A key with Ctrl, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) struct DetachKey(Option<u8>);

impl DetachKey {
    pub(in crate::cli) const NONE: Self = Self(None);

    /// `C-\`, `^]`, `none`. Errors: what terminals cannot tell from Tab, Enter or Esc.
    pub(in crate::cli) fn parse(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("none") {
            return Ok(Self::NONE);
        }
        let rest = text.strip_prefix("C-").or_else(|| text.strip_prefix('^'));
        let mut characters = rest.unwrap_or_default().chars();
        match (characters.next().map(|c| c.to_ascii_uppercase()), characters.next()) {
            (Some('I' | 'J' | 'M' | '['), None) => {
                Err(format!("`{text}` is what Tab, Enter or Esc send; choose another key"))
            }
            (Some(c @ ('A'..='Z' | '\\' | ']' | '^' | '_')), None) => Ok(Self(Some(c as u8 & 0x1f))),
            _ => Err("a key with Ctrl, such as C-\\ or C-], or none".into()),
        }
    }

    /// Whether this CSI sequence, from its parameters on, is the key: as kitty writes it (`92;5u`), or xterm's
    /// modifyOtherKeys (`27;5;92~`).
    fn is(self, csi: &[u8]) -> bool {
        let Some((key, Ok(csi))) = self.0.zip(Some(str::from_utf8(csi))) else { return false };
        let code = |field: &str| field.split(':').next().and_then(|code| code.parse::<u32>().ok());
        let fields = |text: &'_ str| text.split(';').map(str::to_owned).collect::<Vec<_>>();
        let (code, modifier) = if let Some(text) = csi.strip_suffix('u') {
            let fields = fields(text);
            let modifier = fields.get(1).cloned().unwrap_or_default();
            // Behind the colon: 1 pressed, 2 repeated, 3 released.
            if modifier.ends_with(":3") {
                return false;
            }
            (fields.first().and_then(|field| code(field)), code(&modifier))
        } else if let Some(fields) = csi.strip_suffix('~').map(fields) {
            match fields.as_slice() {
                [first, modifier, key] if first == "27" => (code(key), code(modifier)),
                _ => return false,
            }
        } else {
            return false;
        };
        // Caps and num lock do not count.
        let control = modifier.is_some_and(|modifier| modifier.saturating_sub(1) & 0x3f == 4);
        let letter = code.and_then(char::from_u32).map(|c| c.to_ascii_uppercase());
        control && letter == Some(char::from(key | 0x40))
    }
}

impl std::fmt::Display for DetachKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(key) => write!(f, "Ctrl-{}", char::from(key | 0x40)),
            None => f.write_str("none"),
        }
    }
}

/// Longer sequences are nobody's key.
const LONGEST: usize = 32;

#[derive(Debug)]
enum State {
    Ground,
    Escape,
    /// Parameters so far.
    Csi(Vec<u8>),
}

/// Reads keys portion by portion. A paste may hold the key without meaning it.
#[derive(Debug)]
pub(super) struct Scanner {
    key: DetachKey,
    state: State,
    pasting: bool,
}

impl Scanner {
    pub(super) fn new(key: DetachKey) -> Self {
        Self { key, state: State::Ground, pasting: false }
    }

    /// How many of these bytes are for the session, and whether the key came behind them.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> (usize, bool) {
        // Where the sequence began that is being read; in an earlier portion: 0.
        let mut start = 0;
        for (at, byte) in bytes.iter().copied().enumerate() {
            match &mut self.state {
                State::Ground if byte == 0x1b => {
                    start = at;
                    self.state = State::Escape;
                }
                State::Ground if !self.pasting && Some(byte) == self.key.0 => return (at, true),
                State::Ground => {}
                State::Escape if byte == b'[' => self.state = State::Csi(Vec::new()),
                State::Escape if byte == 0x1b => start = at,
                State::Escape => self.state = State::Ground,
                State::Csi(parameters) => {
                    parameters.push(byte);
                    if !(0x40..=0x7e).contains(&byte) && parameters.len() < LONGEST {
                        continue;
                    }
                    let sequence = std::mem::take(parameters);
                    self.state = State::Ground;
                    match sequence.as_slice() {
                        b"200~" => self.pasting = true,
                        b"201~" => self.pasting = false,
                        sequence if !self.pasting && self.key.is(sequence) => return (start, true),
                        _ => {}
                    }
                }
            }
        }
        (bytes.len(), false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> DetachKey {
        DetachKey::parse(text).unwrap()
    }

    #[test]
    fn keys_that_can_leave() {
        let table =
            [("C-\\", Some(0x1c)), ("^]", Some(0x1d)), ("C-a", Some(1)), ("C-P", Some(0x10)), ("none", None)];
        for (text, byte) in table {
            assert_eq!(DetachKey::parse(text), Ok(DetachKey(byte)), "{text}");
        }
        for text in ["", "C-", "C-[", "C-m", "^I", "x", "C-ab", "M-x", "C-é", "Enter"] {
            assert!(DetachKey::parse(text).is_err(), "{text}");
        }
        assert_eq!(key("C-\\").to_string(), "Ctrl-\\");
        assert_eq!(key("^q").to_string(), "Ctrl-Q");
    }

    #[test]
    fn the_key_is_found_as_terminals_write_it() {
        let backslash = key("C-\\");
        let table: [(&str, usize, bool); 14] = [
            ("abc", 3, false),
            ("ab\x1ccd", 2, true),
            ("a\x1b[92;5u", 1, true),
            ("a\x1b[92;5:1ub", 1, true),
            ("\x1b[92;69u", 0, true),
            ("\x1b[92:124:92;5u", 0, true),
            ("\x1b[92;5:3u", 9, false),
            ("\x1b[92;6u", 7, false),
            ("\x1b[92u", 5, false),
            ("\x1b[27;5;92~", 0, true),
            ("\x1b[27;5;93~", 10, false),
            ("\x1b\x1c", 2, false),
            ("\x1b[200~a\x1cb\x1b[92;5u\x1b[201~\x1c", 22, true),
            ("\x1b[A\x1b[1;5C\x1bOP\x1b[<0;92;5M", 22, false),
        ];
        for (text, forward, leave) in table {
            assert_eq!(Scanner::new(backslash).feed(text.as_bytes()), (forward, leave), "{text:?}");
            assert_eq!(Scanner::new(DetachKey::NONE).feed(text.as_bytes()), (text.len(), false), "{text:?}");
            // Byte by byte it is found as well, if later.
            let mut scanner = Scanner::new(backslash);
            let found = text.bytes().any(|byte| scanner.feed(&[byte]).1);
            assert_eq!(found, leave, "{text:?} byte by byte");
        }
        assert_eq!(Scanner::new(key("C-b")).feed(b"a\x1b[98;5u"), (1, true));
        let long = format!("\x1b[{}\x1c", "1;".repeat(40));
        assert_eq!(Scanner::new(backslash).feed(long.as_bytes()), (long.len() - 1, true));
    }
}

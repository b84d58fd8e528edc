//! Names of keys and the bytes that they send: for `castra type`, and for answers to dialogs. Refuses to guess.

use thiserror::Error;

/// What a word of `castra type` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Modes {
    /// DECCKM: arrows, Home and End send SS3.
    pub application_cursor: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    #[error(
        "`{name}` is no key; keys are Enter, Esc, Tab, BTab, Space, BSpace, Del, Ins, Up, Down, Left, Right, Home, End, \
         PgUp, PgDn, F1 to F12, with C-, M- and S- before them, e.g. C-c, M-x, S-Tab"
    )]
    Unknown { name: String },
    #[error("`{name}` is no key; the nearest is {}", .nearest.join(" or "))]
    Mistaken { name: String, nearest: Vec<&'static str> },
    #[error("`{name}`: a terminal has no way to send this combination")]
    Impossible { name: String },
}

/// Names of keys; beside them F1 to F12.
const NAMES: [&str; 25] = [
    "Enter",
    "Return",
    "Esc",
    "Escape",
    "Tab",
    "BTab",
    "Space",
    "BSpace",
    "Backspace",
    "Del",
    "Delete",
    "Ins",
    "Insert",
    "Up",
    "Down",
    "Left",
    "Right",
    "Home",
    "End",
    "PgUp",
    "PageUp",
    "PgDn",
    "PageDown",
    "PPage",
    "NPage",
];

/// The bytes of the key called `name`, as xterm sends it.
///
/// Modifiers as tmux writes them: `C-`, `M-`, `S-`, in any order. A single character is itself.
pub fn key(name: &str, modes: Modes) -> Result<Vec<u8>, KeyError> {
    let unknown = || KeyError::Unknown { name: name.to_owned() };
    let impossible = || KeyError::Impossible { name: name.to_owned() };
    let (mut control, mut meta, mut shift, mut rest) = (false, false, false, name);
    while rest.chars().count() > 2 {
        let flag = match rest.get(..2) {
            Some("C-") => &mut control,
            Some("M-") => &mut meta,
            Some("S-") => &mut shift,
            _ => break,
        };
        *flag = true;
        rest = &rest[2..];
    }
    let mut characters = rest.chars();
    let bytes = match (characters.next(), characters.next()) {
        (None, _) => return Err(unknown()),
        (Some(character), None) => match (control, shift) {
            (true, _) => vec![control_byte(character).ok_or_else(impossible)?],
            (false, true) => character.to_uppercase().to_string().into_bytes(),
            (false, false) => character.to_string().into_bytes(),
        },
        _ => return named(rest, control, meta, shift, modes).ok_or_else(unknown)?.ok_or_else(impossible),
    };
    Ok(if meta { [b"\x1b", &bytes[..]].concat() } else { bytes })
}

/// What a control character is made of, and which one: `C-a` is 1.
fn control_byte(character: char) -> Option<u8> {
    match character.to_ascii_lowercase() {
        letter @ 'a'..='z' => Some(letter as u8 - b'a' + 1),
        '@' | '2' => Some(0),
        '[' | '3' => Some(0x1b),
        '\\' | '4' => Some(0x1c),
        ']' | '5' => Some(0x1d),
        '^' | '6' => Some(0x1e),
        '_' | '/' | '-' | '7' => Some(0x1f),
        '?' | '8' => Some(0x7f),
        _ => None,
    }
}

/// A key with a name. None: there is none; then none: not with these modifiers.
#[expect(clippy::option_option, reason = "two kinds of absence, told apart one line above")]
fn named(name: &str, control: bool, meta: bool, shift: bool, modes: Modes) -> Option<Option<Vec<u8>>> {
    let modifier = 1 + u8::from(shift) + 2 * u8::from(meta) + 4 * u8::from(control);
    let simple = |plain: &[u8]| -> Option<Vec<u8>> {
        match (control, shift) {
            (true, _) | (_, true) => None,
            _ if meta => Some([b"\x1b", plain].concat()),
            _ => Some(plain.to_vec()),
        }
    };
    // CSI final, or SS3 final in application mode; with modifiers always CSI 1;m.
    let cursor = |last: char| {
        Some(match modifier {
            1 if modes.application_cursor => format!("\x1bO{last}"),
            1 => format!("\x1b[{last}"),
            _ => format!("\x1b[1;{modifier}{last}"),
        })
    };
    let function = |last: char| {
        Some(if modifier == 1 { format!("\x1bO{last}") } else { format!("\x1b[1;{modifier}{last}") })
    };
    let tilde = |number: u8| {
        Some(if modifier == 1 { format!("\x1b[{number}~") } else { format!("\x1b[{number};{modifier}~") })
    };
    let text = match name {
        "Enter" | "Return" => return Some(simple(b"\r")),
        "Esc" | "Escape" => return Some(simple(b"\x1b")),
        "Space" if control => return Some(Some(if meta { vec![0x1b, 0] } else { vec![0] })),
        "Space" => return Some(simple(b" ")),
        "BSpace" | "Backspace" => return Some(simple(b"\x7f")),
        "Tab" if shift => Some("\x1b[Z".to_owned()),
        "Tab" => return Some(simple(b"\t")),
        "BTab" => Some("\x1b[Z".to_owned()),
        "Up" => cursor('A'),
        "Down" => cursor('B'),
        "Right" => cursor('C'),
        "Left" => cursor('D'),
        "Home" => cursor('H'),
        "End" => cursor('F'),
        "Ins" | "Insert" | "IC" => tilde(2),
        "Del" | "Delete" | "DC" => tilde(3),
        "PgUp" | "PageUp" | "PPage" => tilde(5),
        "PgDn" | "PageDown" | "NPage" => tilde(6),
        "F1" => function('P'),
        "F2" => function('Q'),
        "F3" => function('R'),
        "F4" => function('S'),
        "F5" => tilde(15),
        "F6" => tilde(17),
        "F7" => tilde(18),
        "F8" => tilde(19),
        "F9" => tilde(20),
        "F10" => tilde(21),
        "F11" => tilde(23),
        "F12" => tilde(24),
        _ => return None,
    };
    Some(text.map(String::into_bytes))
}

/// The keys that somebody may have meant: the word is one but for its case, or for a letter too many, too few or
/// transposed. Another letter makes another word: `Light` is text.
fn nearest(word: &str) -> Vec<&'static str> {
    let is_near = |name: &&str| {
        word.eq_ignore_ascii_case(name)
            || name.len() > 3
                && word.starts_with(|c: char| c.is_ascii_uppercase())
                && is_slip(word.as_bytes(), name.as_bytes())
    };
    let mut found: Vec<_> = NAMES.into_iter().filter(is_near).collect();
    let number = word.strip_prefix(['F', 'f']).filter(|rest| !rest.is_empty());
    if number.is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit())) {
        found.extend(["F1", "F12"]);
    }
    found
}

/// Whether the two differ by one letter more or by two neighbours that changed places.
fn is_slip(a: &[u8], b: &[u8]) -> bool {
    let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[same..], &b[same..]);
    match a.len().cmp(&b.len()) {
        std::cmp::Ordering::Less => *a == b[1..],
        std::cmp::Ordering::Greater => a[1..] == *b,
        std::cmp::Ordering::Equal => {
            matches!((a, b), ([a, b, x @ ..], [c, d, y @ ..]) if (a, b, x) == (d, c, y))
        }
    }
}

/// The words of `castra type`, one after the other: names of keys, and whatever is none as literal text.
///
/// Text is sent as it stands, without control characters: those have names.
pub fn keys<'a>(words: impl IntoIterator<Item = &'a str>, modes: Modes) -> Result<Vec<u8>, KeyError> {
    let mut bytes = Vec::new();
    for word in words {
        match key(word, modes) {
            Ok(key) => bytes.extend(key),
            // A combination that looks like one and is none is a mistake, not text.
            Err(error @ KeyError::Impossible { .. }) => return Err(error),
            Err(error) if ["C-", "M-", "S-"].iter().any(|prefix| word.starts_with(prefix)) => {
                return Err(error);
            }
            Err(_) => {
                let nearest = nearest(word);
                if !nearest.is_empty() {
                    return Err(KeyError::Mistaken { name: word.to_owned(), nearest });
                }
                let visible = word.chars().filter(|character| !character.is_control());
                bytes.extend(visible.collect::<String>().into_bytes());
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NORMAL: Modes = Modes { application_cursor: false };
    const APPLICATION: Modes = Modes { application_cursor: true };

    #[test]
    fn keys_are_what_xterm_sends() {
        for (name, bytes) in [
            ("Enter", "\r"),
            ("Esc", "\x1b"),
            ("Escape", "\x1b"),
            ("Tab", "\t"),
            ("S-Tab", "\x1b[Z"),
            ("BTab", "\x1b[Z"),
            ("Space", " "),
            ("C-Space", "\0"),
            ("BSpace", "\x7f"),
            ("M-BSpace", "\x1b\x7f"),
            ("Up", "\x1b[A"),
            ("C-Up", "\x1b[1;5A"),
            ("S-M-Left", "\x1b[1;4D"),
            ("M-S-Left", "\x1b[1;4D"),
            ("End", "\x1b[F"),
            ("Del", "\x1b[3~"),
            ("C-Del", "\x1b[3;5~"),
            ("PgUp", "\x1b[5~"),
            ("F1", "\x1bOP"),
            ("S-F1", "\x1b[1;2P"),
            ("F5", "\x1b[15~"),
            ("C-F12", "\x1b[24;5~"),
            ("C-c", "\x03"),
            ("C-C", "\x03"),
            ("C-\\", "\x1c"),
            ("C-?", "\x7f"),
            ("M-x", "\x1bx"),
            ("C-M-a", "\x1b\x01"),
            ("S-a", "A"),
            ("1", "1"),
            ("é", "é"),
            ("你", "你"),
            ("-", "-"),
            ("C-", "C-"),
        ] {
            if name == "C-" {
                assert_eq!(key(name, NORMAL), Err(KeyError::Unknown { name: name.into() }));
                continue;
            }
            assert_eq!(key(name, NORMAL), Ok(bytes.as_bytes().to_vec()), "{name}");
        }
    }

    #[test]
    fn cursor_keys_follow_the_terminal() {
        for (name, bytes) in
            [("Up", "\x1bOA"), ("Home", "\x1bOH"), ("C-Up", "\x1b[1;5A"), ("PgUp", "\x1b[5~")]
        {
            assert_eq!(key(name, APPLICATION), Ok(bytes.as_bytes().to_vec()), "{name}");
        }
    }

    #[test]
    fn what_no_terminal_sends_is_refused() {
        for name in ["C-Enter", "S-Enter", "S-Esc", "C-Tab", "C-é", "C-1"] {
            assert_eq!(key(name, NORMAL), Err(KeyError::Impossible { name: name.into() }), "{name}");
        }
        for name in ["", "Entre", "F13", "C-Nope", "C-"] {
            assert_eq!(key(name, NORMAL), Err(KeyError::Unknown { name: name.into() }), "{name}");
        }
    }

    #[test]
    fn words_that_are_no_keys_are_text() {
        let typed = keys(["echo", "Space", "a b\u{1b}c\r", "Enter"], NORMAL);
        assert_eq!(typed, Ok(b"echo a bc\r".to_vec()));
        for word in [
            "hello",
            "Light",
            "Lift",
            "And",
            "Tap",
            "Enter the room",
            "Entertain",
            "F",
            "Fn",
            "F1x",
            "up there",
        ] {
            assert_eq!(keys([word], NORMAL), Ok(word.as_bytes().to_vec()), "{word}");
        }
        assert_eq!(keys(["C-Nope"], NORMAL), Err(KeyError::Unknown { name: "C-Nope".into() }));
        assert_eq!(keys(["x", "C-Enter"], NORMAL), Err(KeyError::Impossible { name: "C-Enter".into() }));
    }

    #[test]
    fn a_slip_is_no_text() {
        for (word, nearest) in [
            ("enter", &["Enter"][..]),
            ("ESC", &["Esc"]),
            ("up", &["Up"]),
            ("Entre", &["Enter"]),
            ("Entr", &["Enter"]),
            ("Enterr", &["Enter"]),
            ("Spcae", &["Space"]),
            ("Dwon", &["Down"]),
            ("BackSpace", &["Backspace"]),
            ("F13", &["F1", "F12"]),
            ("f5", &["F1", "F12"]),
        ] {
            let error = KeyError::Mistaken { name: word.into(), nearest: nearest.to_vec() };
            assert_eq!(keys(["x", word], NORMAL), Err(error), "{word}");
        }
        for name in NAMES {
            assert!(key(name, NORMAL).is_ok(), "{name}");
        }
    }
}

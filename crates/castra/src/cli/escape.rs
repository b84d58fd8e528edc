//! Text from an agent made harmless for a terminal: what would move the cursor, hide or reorder text is
//! shown as an escape. Pure.

use std::borrow::Cow;

/// Controls (except newline and tab), and the marks that reorder text.
fn is_hidden(c: char) -> bool {
    match c {
        '\n' | '\t' => false,
        // Bidirectional marks, embeddings, overrides, isolates; and the byte order mark, which is invisible.
        '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        '\u{feff}' | '\u{2028}' | '\u{2029}' => true,
        c => c.is_control(),
    }
}

fn escaped(text: &str, escape: impl Fn(u32) -> String) -> Cow<'_, str> {
    if !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_hidden(c) { out.push_str(&escape(c as u32)) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// Keeps newlines and tabs; everything else that a terminal would obey is spelled out.
pub(super) fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, |c| match c {
        0x0d => "\\r".into(),
        c if c < 0x100 => format!("\\x{c:02x}"),
        c => format!("\\u{{{c:x}}}"),
    })
}

/// The same for JSON, where the result is the same document.
pub(super) fn visible_json(text: &str) -> Cow<'_, str> {
    escaped(text, |c| format!("\\u{c:04x}"))
}

/// One line of at most `width` characters; what is cut is marked.
pub(super) fn one_line(text: &str, width: usize) -> String {
    let flat: Vec<char> =
        visible(text.trim()).chars().map(|c| if matches!(c, '\n' | '\t') { ' ' } else { c }).collect();
    match flat.get(..width.saturating_sub(1)) {
        Some(head) if flat.len() > width => head.iter().chain(&['…']).collect(),
        _ => flat.into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_obeys_none_of_it() {
        let table: &[(&str, &str)] = &[
            ("plain\ttext\nand more", "plain\ttext\nand more"),
            ("\u{1b}[2Jgone", "\\x1b[2Jgone"),
            ("\u{1b}]0;title\u{7}", "\\x1b]0;title\\x07"),
            ("over\rwritten", "over\\rwritten"),
            ("a\u{8}b\u{7f}", "a\\x08b\\x7f"),
            ("\u{9b}31m", "\\x9b31m"),
            ("rm \u{202e}txt.exe", "rm \\u{202e}txt.exe"),
            ("a\u{2028}b\u{feff}", "a\\u{2028}b\\u{feff}"),
            ("grüße 漢字 🎉", "grüße 漢字 🎉"),
            ("nul\0", "nul\\x00"),
            ("", ""),
        ];
        for (text, expected) in table {
            assert_eq!(visible(text), *expected);
        }
    }

    #[test]
    fn every_control_of_unicode_is_escaped_but_two() {
        let passed: Vec<char> =
            ('\0'..='\u{ff}').filter(|c| c.is_control() && visible(&c.to_string()).contains(*c)).collect();
        assert_eq!(passed, ['\t', '\n']);
    }

    #[test]
    fn json_stays_the_same_document() {
        let value = serde_json::json!({"a": "\u{9b}31m \u{202e}x\u{7f}"});
        let shown = visible_json(&value.to_string()).into_owned();
        assert_eq!(shown, r#"{"a":"\u009b31m \u202ex\u007f"}"#);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }

    #[test]
    fn lines_are_cut_by_characters() {
        let table: &[(&str, usize, &str)] = &[
            ("  ls -la\n", 20, "ls -la"),
            ("a\nb\tc", 20, "a b c"),
            ("abcdef", 6, "abcdef"),
            ("abcdefg", 6, "abcde…"),
            ("äöüß€x", 4, "äöü…"),
            ("\u{1b}[1m", 20, "\\x1b[1m"),
            ("abc", 0, "…"),
        ];
        for (text, width, expected) in table {
            assert_eq!(one_line(text, *width), *expected, "{text:?} in {width}");
        }
    }
}

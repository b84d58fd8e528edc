//! Tables of hazards and of what both CLIs recorded for them.

use super::*;
use proptest::prelude::*;

fn pasted(text: &str) -> Vec<String> {
    let bytes = type_text(text).unwrap().paste;
    let all = String::from_utf8(bytes).unwrap();
    let parts = all.strip_prefix("\x1b[200~").unwrap().strip_suffix("\x1b[201~").unwrap();
    parts.split("\x1b[201~\x1b[200~").map(str::to_owned).collect()
}

#[test]
fn hazards_are_disarmed() {
    for (text, paste) in [
        ("hello", "hello "),
        ("ends in \\", "ends in \\ "),
        ("\\", "\\ "),
        ("see @a.txt", "see @a.txt "),
        ("!ls", " !ls "),
        ("\u{200b}!ls", " \u{200b}!ls "),
        ("\n !ls", " \n !ls "),
        ("/clear", " /clear\n\n\n\n\n\n\n\n\n\n\n\n"),
        ("\u{2060}/clear", " \u{2060}/clear\n\n\n\n\n\n\n\n\n\n\n\n"),
        ("exit", "exit\n\n\n\n\n\n\n\n\n\n\n\n"),
        (" quit ", " quit\n\n\n\n\n\n\n\n\n\n\n\n"),
        (":wq!", ":wq!\n\n\n\n\n\n\n\n\n\n\n\n"),
        ("exit now", "exit now "),
        ("EXIT", "EXIT "),
        ("a\u{1b}[201~\rb\u{7}\u{9b}c", "a[201~\nbc "),
        ("a\r\nb\tc", "a\nb    c "),
        ("# x", "# x "),
        ("?", "? "),
    ] {
        assert_eq!(pasted(text), [paste], "{text:?}");
        assert_eq!(type_text(text).unwrap().submit, b"\r");
    }
}

#[test]
fn what_cannot_be_typed_is_refused() {
    for text in ["", " \n\t ", "\u{1b}", "\u{a0}"] {
        assert_eq!(type_text(text), Err(TypingError::Empty), "{text:?}");
    }
    assert_eq!(type_text(&"x".repeat(MAX_TEXT + 1)), Err(TypingError::TooLong { bytes: MAX_TEXT + 1 }));
    assert!(type_text(&"x".repeat(MAX_TEXT)).is_ok());
}

#[test]
fn commands_are_deliberate_and_one_line() {
    assert_eq!(type_command(" /model sonnet ").unwrap().paste, b"\x1b[200~/model sonnet \x1b[201~");
    for command in ["", "/", "clear", "!ls", "/ clear", "//", "/clear\nrm", "/a\u{1b}", "/1"] {
        assert!(matches!(type_command(command), Err(TypingError::NotACommand { .. })), "{command:?}");
    }
}

#[test]
fn long_texts_are_pasted_in_parts_that_are_not_folded() {
    let text = (0..200).map(|n| format!("line {n}")).collect::<Vec<_>>().join("\n");
    for text in [text, "x".repeat(200_000), "👩‍👩‍👧你é\n".repeat(3000)] {
        let parts = pasted(&text);
        assert_eq!(parts.concat().trim_end(), text.trim_end());
        for part in &parts {
            assert!(part.encode_utf16().count() <= 600 && part.matches('\n').count() <= 2, "{part:?}");
        }
    }
}

#[test]
fn a_text_stands_when_its_end_is_seen() {
    let long: String = (0..2500).map(|n| format!("{n:04} {}\n", "x".repeat(75))).collect();
    let tail = |from: usize, to: usize| -> String {
        (from..to).map(|n| format!("{n:04} {}\n", "x".repeat(75))).collect()
    };
    for (composer, text, expected) in [
        ("hello", "hello", Some(true)),
        ("  hello", "  hello \n", Some(true)),
        ("", "hello", Some(false)),
        ("hel", "hello", Some(false)),
        ("what was there hello", "hello", Some(true)),
        ("a wrapped\nline of it", "a wrapped line of it", Some(true)),
        ("[Pasted text #1 +12 lines]", "/clear", Some(true)),
        ("[Pasted text #3]", " exit", Some(true)),
        ("/clear", "/clear", Some(false)),
        ("\u{200b}/clear", "\u{200b}/clear", Some(false)),
        ("漢字 한글", "漢字 한글", Some(true)),
        ("é 😀 x", "e\u{301} 👩‍👩‍👧‍👦 x", Some(true)),
        ("😀", "👩‍👩‍👧‍👦", None),
        ("?", "?", None),
        (&tail(2455, 2500), &long, Some(true)),
        (&tail(2185, 2230), &long, Some(false)),
    ] {
        assert_eq!(stands(composer, text), expected, "{composer:?} {text:?}");
    }
}

/// `(sent, recorded by 2.1.197, recorded by 2.1.329)`, as measured.
#[test]
fn recorded_prompts_are_known_again() {
    for (sent, recorded) in [
        ("hello there", "hello there"),
        ("!echo shell", " !echo shell"),
        ("/clear", " /clear\n\n\n\n\n\n\n\n\n\n\n\n"),
        (
            "/clear",
            "\n\n<pasted_content id=\"554f\">\n /clear\n\n\n\n\n\n\n\n\n\n\n\n\n</pasted_content id=\"554f\">\n",
        ),
        ("exit", "\n\n<pasted_content id=\"da1f\">\nexit\n\n\n</pasted_content id=\"da1f\">\n"),
        ("  edges  ", "  edges"),
        ("tab\there", "tab    here"),
        ("crlf\r\nline", "crlf\nline"),
        ("cr\rline", "cr\nline"),
        ("wide 你好 emoji 👩‍👩‍👧 é e\u{301}", "wide 你好 emoji 👩‍👩‍👧 é é"),
        ("zwsp\u{200b}x", "zwspx"),
        ("bell\u{7}x \u{1} \u{7f} del", "bellx   del"),
        ("nbsp\u{a0}end\u{a0}", "nbsp\u{a0}end"),
        ("a\u{1b}[201~ b", "a[201~ b"),
        ("says <pasted_content id=\"1\">", "says <pasted_content id=\"1\">"),
        ("<pasted_content id=\"1\">", "<\\pasted_content id=\"1\">"),
    ] {
        assert!(same_prompt(sent, recorded), "{sent:?} {recorded:?}");
    }
    for (sent, recorded) in [
        ("hello", "hello there"),
        ("hello", ""),
        ("你好", "再见"),
        ("a b", "ab"),
        ("a\n\nb", "a\nb"),
        ("Case", "case"),
        ("x", "<command-name>/x</command-name>"),
    ] {
        assert!(!same_prompt(sent, recorded), "{sent:?} {recorded:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_is_typed_is_a_key(text in "\\PC*|[\\x00-\\x1f/!exit\\\\ \u{9b}]{0,40}|(.|\n){0,2000}") {
        let Ok(typed) = type_text(&text) else { return Ok(()) };
        let all = String::from_utf8(typed.paste).unwrap();
        let inner = all.strip_prefix("\x1b[200~").unwrap().strip_suffix("\x1b[201~").unwrap();
        let parts: Vec<&str> = inner.split("\x1b[201~\x1b[200~").collect();
        let text_of_it = parts.concat();
        prop_assert!(text_of_it.chars().all(|c| c == '\n' || !c.is_control()), "{text_of_it:?}");
        let first = text_of_it.chars().next().unwrap();
        prop_assert!(first != '!' && first != '/', "{text_of_it:?}");
        prop_assert!(text_of_it.ends_with([' ', '\n']));
        prop_assert!(same_prompt(&text, &text_of_it));
    }
}

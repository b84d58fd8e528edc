//! Short words about long things: the last sentence of a text, a tool call in one line. Presentation, no more.

use serde_json::Value;

/// Characters.
const LIMIT: usize = 200;

/// Arguments that say most about a call, the best first.
const TELLING: [&str; 13] = [
    "command",
    "file_path",
    "notebook_path",
    "path",
    "pattern",
    "query",
    "url",
    "skill",
    "question",
    "description",
    "prompt",
    "subject",
    "text",
];

/// The last sentence of `text`, on one line, at most 200 characters.
pub fn last_sentence(text: &str) -> Option<String> {
    let text = text.trim_end();
    // A window is enough, and keeps a text of 20 MB from being walked.
    let window = &text[text.floor_char_boundary(text.len().saturating_sub(LIMIT * 16))..];
    let mut start = 0;
    for (at, mark) in window.match_indices(['.', '!', '?', '\n', '。']) {
        let rest = &window[at + mark.len()..];
        if (mark == "\n" || mark == "。" || rest.starts_with(char::is_whitespace)) && !rest.trim().is_empty()
        {
            start = at + mark.len();
        }
    }
    let line = one_line(&window[start..]);
    (!line.is_empty()).then_some(line)
}

/// The argument of a tool call that says most, on one line, at most 200 characters.
pub fn preview(input: &Value) -> String {
    let Value::Object(fields) = input else { return String::new() };
    let named = TELLING.iter().find_map(|name| fields.get(*name)?.as_str());
    let asked = || fields.get("questions")?.get(0)?.get("question")?.as_str();
    let first = || fields.values().find_map(Value::as_str);
    one_line(named.or_else(asked).or_else(first).unwrap_or_default())
}

/// One line without control characters, shortened with `…`.
pub(crate) fn one_line(text: &str) -> String {
    let blank = |c: char| c.is_whitespace() || c.is_control();
    // More than LIMIT words cannot be shown.
    let words: Vec<&str> = text.split(blank).filter(|word| !word.is_empty()).take(LIMIT).collect();
    let line = words.join(" ");
    match line.char_indices().nth(LIMIT) {
        None => line,
        Some(_) => line.chars().take(LIMIT - 1).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_last_sentence_is_what_was_said_last() {
        for (text, sentence) in [
            ("", None),
            (" \n ", None),
            ("Hello there. How are you?", Some("How are you?")),
            ("One.\n\nTwo without a dot", Some("Two without a dot")),
            ("Version 2.1.197 is out.", Some("Version 2.1.197 is out.")),
            ("First line\nsecond   line ", Some("second line")),
            ("你好。再见。", Some("再见。")),
            ("bell \u{7} and\u{1b}[31m", Some("bell and [31m")),
        ] {
            assert_eq!(last_sentence(text).as_deref(), sentence, "{text:?}");
        }
    }

    #[test]
    fn what_is_long_is_shortened_to_200_characters() {
        let long = "ä".repeat(1000);
        let line = last_sentence(&long).unwrap();
        assert_eq!((line.chars().count(), line.ends_with("ä…")), (200, true));
        assert_eq!(last_sentence(&"x".repeat(200)).unwrap(), "x".repeat(200));
        let huge = format!("Start. {}", "é ".repeat(1 << 20));
        assert_eq!(last_sentence(&huge).unwrap().chars().count(), 200);
    }

    #[test]
    fn a_tool_call_is_known_by_its_main_argument() {
        for (input, line) in [
            (json!({"description": "d", "command": "ls\n -l"}), "ls -l"),
            (json!({"file_path": "/a b", "content": "x"}), "/a b"),
            (json!({"questions": [{"question": "Which?"}]}), "Which?"),
            (json!({"n": 1, "odd": "value"}), "value"),
            (json!({"n": 1}), ""),
            (json!("no object"), ""),
        ] {
            assert_eq!(preview(&input), line);
        }
    }
}

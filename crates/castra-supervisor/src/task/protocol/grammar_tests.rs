//! The table of facts/optio.md §1c, line by line.

use super::*;
use serde_json::json;

const ALL: Enabled = Enabled { browser: true, client_messages: true, caller_messages: true };

fn status(percent: Option<u8>, message: &str) -> Said {
    Said::Status { percent, message: message.into() }
}

fn done(summary: Option<&str>) -> Said {
    Said::Done { summary: summary.map(Into::into) }
}

fn error(message: Option<&str>) -> Said {
    Said::Error { message: message.map(Into::into) }
}

fn file(path: &str) -> Said {
    Said::Deliverable { path: path.into() }
}

fn text(text: &str) -> Said {
    Said::Progress { text: text.into() }
}

#[test]
fn each_line_says_what_the_table_says() {
    let table: &[(&str, Said)] = &[
        ("STATUS: reading", status(None, "reading")),
        ("STATUS: 50% reading", status(Some(50), "reading")),
        ("STATUS: 0% x", status(Some(0), "x")),
        ("STATUS: 007% x", status(Some(7), "x")),
        ("STATUS: 100% x", status(Some(100), "x")),
        ("STATUS: 250% x", status(Some(100), "x")),
        ("STATUS: 999% x", status(Some(100), "x")),
        ("STATUS: 1000% x", status(None, "1000% x")),
        ("STATUS: 50%", status(None, "50%")),
        ("STATUS: 50% ", status(None, "50%")),
        ("STATUS: 50%x", status(None, "50%x")),
        ("STATUS: 50 % x", status(None, "50 % x")),
        ("STATUS: 50.5% x", status(None, "50.5% x")),
        ("STATUS: -5% x", status(None, "-5% x")),
        ("STATUS: % x", status(None, "% x")),
        ("STATUS: ٥٠% x", status(None, "٥٠% x")),
        ("STATUS: 50%   x  y  ", status(Some(50), "x  y")),
        ("STATUS:reading", status(None, "reading")),
        ("STATUS:", status(None, "")),
        ("STATUS", text("STATUS")),
        ("STATUS reading", text("STATUS reading")),
        ("STATUSES: x", text("STATUSES: x")),
        ("status: x", text("status: x")),
        (" STATUS: x", text(" STATUS: x")),
        ("\tDONE", text("\tDONE")),
        ("STATUS: DONE", status(None, "DONE")),
        ("DELIVERABLE: deliverables/a report.md", file("deliverables/a report.md")),
        ("DELIVERABLE:   ./deliverables/x.md  \r", file("./deliverables/x.md")),
        ("DELIVERABLE: ../x", file("../x")),
        ("DELIVERABLE:", text("DELIVERABLE:")),
        ("DELIVERABLE:   ", text("DELIVERABLE:")),
        ("DONE", done(None)),
        ("DONE\r", done(None)),
        ("DONE   ", done(None)),
        ("DONE:", done(None)),
        ("DONE:  ", done(None)),
        ("DONE: all of it", done(Some("all of it"))),
        ("DONE:all of it", done(Some("all of it"))),
        ("DONE extra", text("DONE extra")),
        ("- DONE", text("- DONE")),
        ("DONE!", text("DONE!")),
        ("DONE.", text("DONE.")),
        ("DONE : x", text("DONE : x")),
        ("Done", text("Done")),
        ("ERROR", error(None)),
        ("ERROR:", error(None)),
        ("ERROR: no access", error(Some("no access"))),
        ("ERROR no access", text("ERROR no access")),
        ("ERRORS: 3", text("ERRORS: 3")),
        ("ATTENTION: please", Said::Attention { reason: "please".into() }),
        ("ATTENTION:", text("ATTENTION:")),
        ("BROWSER: \"https://e.com/a b\"", Said::Browser { url: "https://e.com/a b".into() }),
        ("BROWSER: https://e.com/", Said::Browser { url: "https://e.com/".into() }),
        ("BROWSER: HTTP://e.com", Said::Browser { url: "HTTP://e.com".into() }),
        ("BROWSER: javascript:alert(1)", text("BROWSER: javascript:alert(1)")),
        ("BROWSER: \"file:///etc/passwd\"", text("BROWSER: \"file:///etc/passwd\"")),
        ("BROWSER: https://", text("BROWSER: https://")),
        ("BROWSER: https://e.com/\u{1b}[2J", text("BROWSER: https://e.com/\u{1b}[2J")),
        ("BROWSER: \"\"", text("BROWSER: \"\"")),
        ("BROWSER:", text("BROWSER:")),
        (
            "CLIENT_MESSAGE: built {\"a\": [1, null]}",
            Said::ClientMessage { name: "built".into(), data: json!({"a": [1, null]}) },
        ),
        ("CLIENT_MESSAGE: n   \"x y\"", Said::ClientMessage { name: "n".into(), data: json!("x y") }),
        ("CALLER_MESSAGE: n 1", Said::CallerMessage { name: "n".into(), data: json!(1) }),
        ("CALLER_MESSAGE: n {\"a\":", text("CALLER_MESSAGE: n {\"a\":")),
        ("CALLER_MESSAGE: n {} {}", text("CALLER_MESSAGE: n {} {}")),
        ("CALLER_MESSAGE: n", text("CALLER_MESSAGE: n")),
        ("CALLER_MESSAGE: {}", text("CALLER_MESSAGE: {}")),
        ("CALLER_MESSAGE:", text("CALLER_MESSAGE:")),
        ("working on it", text("working on it")),
        ("  indented  ", text("  indented")),
        ("System: DONE", text("System: DONE")),
    ];
    for (line, said) in table {
        assert_eq!(parse(line, &ALL).as_ref(), Some(said), "{line:?}");
    }
    for blank in ["", " ", "\r", "\t \r"] {
        assert_eq!(parse(blank, &ALL), None, "{blank:?}");
    }
}

#[test]
fn a_keyword_that_was_not_asked_for_is_a_line_of_text() {
    for row in TABLE {
        let optional = matches!(row.word, "BROWSER" | "CLIENT_MESSAGE" | "CALLER_MESSAGE");
        let said = parse(row.example, &Enabled::default());
        assert_eq!(said == Some(text(row.example)), optional, "{}", row.word);
    }
}

#[test]
fn each_one_is_enabled_by_its_own_switch() {
    let switches = [
        ("BROWSER", Enabled { browser: true, ..Enabled::default() }),
        ("CLIENT_MESSAGE", Enabled { client_messages: true, ..Enabled::default() }),
        ("CALLER_MESSAGE", Enabled { caller_messages: true, ..Enabled::default() }),
    ];
    for (word, enabled) in &switches {
        for row in TABLE.iter().filter(|row| switches.iter().any(|(word, _)| *word == row.word)) {
            let read = parse(row.example, enabled) != Some(text(row.example));
            assert_eq!(read, row.word == *word, "{} with {word}", row.word);
        }
    }
}

#[test]
fn json_that_is_deep_is_no_message() {
    let deep = format!("CALLER_MESSAGE: n {}1{}", "[".repeat(200), "]".repeat(200));
    assert_eq!(parse(&deep, &ALL), Some(text(&deep)));
}

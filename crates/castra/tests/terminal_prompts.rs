//! Fifty prompts in a row, typed into one TUI by program: whatever a text holds, it arrives once and as text, each
//! has one result, and nothing of it is run.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod terminal;

use castra_proto::RunState;
use castra_testkit::{Cli, World, clis};
use serde_json::{Value, json};
use terminal::{CASTRA, answered, data_of, terminal};

const SCRIPT: &str = r#"
[[rule]]
name = "count"
reply.text = "heard {{call}}"
reply.start_delay_ms = 50
"#;

/// A message and what the model hears of it, where the composer changes it (docs/terminal.md).
struct Prompt {
    text: String,
    heard: String,
}

fn as_it_is(text: impl Into<String>) -> Prompt {
    let text = text.into();
    Prompt { heard: text.clone(), text }
}

fn heard_as(text: &str, heard: &str) -> Prompt {
    Prompt { text: text.to_owned(), heard: heard.to_owned() }
}

fn lines(count: usize, of: impl Fn(usize) -> String) -> String {
    (1..=count).map(of).collect::<Vec<_>>().join("\n")
}

fn prompts() -> Vec<Prompt> {
    let plain = [
        // A shell, if it is one.
        "!touch witness",
        "! touch witness",
        "  !touch witness",
        "$(touch witness) `touch witness` ; touch witness",
        // Commands, if they are.
        "/clear",
        "/model opus",
        "/exit",
        "/compact now",
        "/no-such-command with words",
        "/usr/bin/env is a path",
        "/",
        // Ends, if they are.
        "exit",
        "quit",
        ":q",
        ":wq!",
        "EXIT",
        // Keys and menus.
        r"ends in a backslash \",
        r"\\",
        "see @note.txt",
        "@note.txt",
        "@no-such-file",
        "# a heading, no memory",
        "& in front",
        "?",
        // Short ones; digits choose in a dialog.
        "a",
        "1",
        "2",
        "0",
        "y",
        ".",
        "é",
        // Any script.
        "漢字かな交じり文 한글 ｆｕｌｌ ｗｉｄｔｈ",
        "😀 👍🏽 🇩🇪 🏳",
        "שלום عليكم नमस्ते",
        "a\u{a0}b – “quotes” … ¿?",
        "two\nlines",
        "five\n\n\nlines\nwith gaps",
        "<system>not a tag</system>",
        "[Pasted text #1 +3 lines] and [Image #1]",
        "ultrathink, plan it, and remember to say so",
    ];
    let mut prompts: Vec<Prompt> = plain.into_iter().map(as_it_is).collect();
    prompts.extend([
        heard_as("before\u{1b}[201~\r!touch witness\rafter", "before[201~\n!touch witness\nafter"),
        heard_as("\u{1b}[200~nested\u{1b}[201~", "[200~nested[201~"),
        heard_as("a\u{1}b\u{3}c\u{4}d\u{7}e\u{8}f\u{c}g\u{15}h\u{1a}i\u{1c}j\u{7f}k\u{9b}l", "abcdefghijkl"),
        heard_as("one\ttwo\r\nthree\rfour", "one    two\nthree\nfour"),
        heard_as("e\u{301} n\u{303} u\u{308}", "é ñ ü"),
        heard_as("blanks behind   \n \n", "blanks behind"),
        as_it_is("  blanks before"),
        as_it_is(lines(200, |n| format!("line {n} of two hundred"))),
        as_it_is(lines(2500, |n| format!("{n:04} {}", "x".repeat(75)))),
        as_it_is("one long line ".repeat(300).trim_end()),
    ]);
    prompts
}

/// What the model heard, without what 2.1.329 puts around a paste that is folded. Blanks at the edges are what a test
/// of the wire cannot ask for: the request log trims them.
fn unfolded(heard: &str) -> String {
    let Some(rest) = heard.strip_prefix("<pasted_content id=\"") else { return heard.to_owned() };
    let (id, rest) = rest.split_once("\">\n").expect("a frame");
    let close = format!("</pasted_content id=\"{id}\">");
    let (body, behind) = rest.split_once(&close).expect("its end");
    assert_eq!(behind, "", "{heard:?}");
    body.trim().to_owned()
}

fn fifty(cli: &Cli) {
    let world = World::new(CASTRA, &cli.path, SCRIPT);
    std::fs::write(world.folder().join("note.txt"), "a note\n").unwrap();
    let daemon = world.daemon();
    let session = terminal(&daemon, json!({"workdir": world.folder(), "permission_mode": "acceptEdits"}));
    let prompts = prompts();
    assert_eq!(prompts.len(), 50);

    // Half of them one by one, half at once into a session that is busy.
    let mut sent = Vec::new();
    for (n, prompt) in prompts.iter().enumerate() {
        sent.push(session.send(&prompt.text));
        if n % 10 < 5 {
            let message = session.answer_to(&sent[n]);
            assert_eq!(answered(&message).0, format!("heard {}", n + 1), "{cli}: {:.100}", prompt.text);
        }
    }
    for (n, (prompt, message)) in prompts.iter().zip(&sent).enumerate() {
        let message = session.answer_to(message);
        assert_eq!(
            answered(&message),
            (format!("heard {}", n + 1).as_str(), true),
            "{cli}: {:.100}",
            prompt.text
        );
        let usage = message.result.unwrap().usage;
        assert!(
            usage["output_tokens"].as_u64().is_some_and(|n| n > 0),
            "{cli}: {:.100}: {usage}",
            prompt.text
        );
    }
    let heard = world.heard();
    let heard_and_meant = heard.iter().map(|heard| unfolded(heard)).zip(&prompts);
    let other: Vec<(String, &str)> = heard_and_meant
        .filter(|(heard, prompt)| *heard != prompt.heard.trim())
        .map(|(heard, prompt)| (heard, prompt.heard.as_str()))
        .collect();
    assert!(other.is_empty(), "{cli}: heard, and meant: {other:#?}");
    assert_eq!((heard.len(), world.calls().len()), (50, 50), "{cli}: the model hears each once");

    let shown = session.wait_idle();
    assert_eq!((shown.turns, shown.turn.n, shown.queued, shown.run), (50, 50, 0, 1), "{cli}");
    assert_eq!(shown.claude_session_ids.len(), 1, "{cli}: no text was a /clear");
    let ids: Vec<Value> = sent.iter().map(|message| json!(message.message_id)).collect();
    let of_kind = |kind: &str| -> Vec<Value> {
        data_of(&session, kind).iter().map(|data| data["message_id"].clone()).collect()
    };
    assert_eq!((of_kind("input_accepted"), of_kind("input_delivered")), (ids.clone(), ids), "{cli}");
    let results: Vec<Value> = data_of(&session, "result").iter().map(|data| data["result"].clone()).collect();
    assert_eq!(results, (1..=50).map(|n| json!(format!("heard {n}"))).collect::<Vec<_>>(), "{cli}");
    let mut files: Vec<String> = std::fs::read_dir(world.folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.retain(|name| !name.starts_with('.'));
    assert_eq!(files, ["note.txt"], "{cli}: no shell ran");
    session.act("stop");
    assert_eq!(session.wait_state(RunState::Ended).run, 1, "{cli}");
}

#[test]
fn fifty_prompts_arrive_once_and_unchanged() {
    let clis = clis();
    std::thread::scope(|scope| {
        for cli in &clis {
            scope.spawn(move || fifty(cli));
        }
    });
}

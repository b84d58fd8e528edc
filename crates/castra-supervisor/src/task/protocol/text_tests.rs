//! What agents are told is what is read: the page's own examples go through the parser.

use super::super::{Reader, Said, parse};
use super::*;
use castra_proto::Timestamp;

const NONE: Enabled = Enabled { browser: false, client_messages: false, caller_messages: false };
const ALL: Enabled = Enabled { browser: true, client_messages: true, caller_messages: true };
const LOG: Channels = Channels { log: true, mcp: false };

fn parts<'a>() -> Parts<'a> {
    Parts {
        channels: LOG,
        enabled: NONE,
        nonce: "k3v9",
        paths: Paths::fresh(),
        resumable: true,
        uploads: true,
        instructions: "Count the {{files}}.\n",
        notes: &["The network is closed."],
    }
}

#[test]
fn only_what_is_enabled_is_told_of() {
    for enabled in (0..8).map(|bits| Enabled {
        browser: bits & 1 > 0,
        client_messages: bits & 2 > 0,
        caller_messages: bits & 4 > 0,
    }) {
        for channels in [LOG, Channels { log: true, mcp: true }] {
            let page = protocol(channels, &enabled, &Paths::fresh(), "k3v9");
            for row in TABLE {
                let read = !matches!(parse(row.example, &enabled), Some(Said::Progress { .. }));
                assert_eq!(page.contains(row.word), read, "{} with {enabled:?}", row.word);
            }
        }
    }
}

#[test]
fn its_examples_are_understood() {
    let page = protocol(LOG, &ALL, &Paths::beside(), "k3v9");
    let examples: Vec<&str> =
        (page.lines()).filter_map(|line| line.split_once(" Example: `")?.1.strip_suffix('`')).collect();
    assert_eq!(examples.len(), TABLE.len());
    for (example, row) in examples.iter().zip(TABLE) {
        assert!(example.starts_with(row.word), "{example}");
        assert!(!matches!(parse(example, &ALL), Some(Said::Progress { .. }) | None), "{example}");
    }
    assert_eq!(
        parse(examples[1], &ALL),
        Some(Said::Deliverable { path: ".castra/deliverables/summary.md".into() })
    );
}

/// The page's shell commands, by a shell.
#[test]
fn its_commands_say_what_they_are_meant_to() {
    let folder = tempfile::tempdir().unwrap();
    let paths = Paths::beside().below(folder.path().to_str().unwrap());
    std::fs::create_dir(folder.path().join(".castra")).unwrap();
    let page = protocol(LOG, &NONE, &paths, "k3v9");
    let script = page.split("```").nth(1).unwrap().strip_prefix("sh\n").unwrap();
    let run = |script: &str| {
        let done = std::process::Command::new("sh").args(["-ec", script]).status().unwrap();
        assert!(done.success(), "{script}");
        let mut reader = Reader::new(NONE);
        let mut said = reader.push(Timestamp(0), &std::fs::read(paths.log()).unwrap());
        said.extend(reader.finish());
        std::fs::remove_file(paths.log()).unwrap();
        said.into_iter().map(|entry| entry.said).collect::<Vec<_>>()
    };
    let expected = [
        Said::Status { percent: Some(50), message: "half of the files are read".into() },
        Said::Deliverable { path: format!("{}summary.md", paths.deliverables()) },
        Said::Done { summary: None },
    ];
    assert_eq!(run(script), expected);
    // And the one that is always understood, after a text.
    let always = page.split('`').find(|code| code.starts_with("printf '\\nDONE")).unwrap();
    let expected = [Said::Progress { text: "text".into() }, Said::Done { summary: None }];
    assert_eq!(run(&format!("echo text >> {}; {always}", paths.log())), expected);
}

#[test]
fn parts_come_in_their_order_and_only_if_asked_for() {
    let heads = |parts: &Parts<'_>| -> Vec<String> {
        let text = instructions(parts);
        text.lines().filter_map(|line| line.strip_prefix("## ")).map(str::to_owned).collect()
    };
    assert_eq!(
        heads(&parts()),
        [
            "Reporting by `optio.log`",
            "Deliverables",
            "Messages of castra",
            "If you are interrupted",
            "Files that are handed in",
            "Instructions",
            "Notes",
        ]
    );
    let few = Parts { resumable: false, uploads: false, notes: &[], ..parts() };
    assert_eq!(
        heads(&few),
        ["Reporting by `optio.log`", "Deliverables", "Messages of castra", "Instructions"]
    );
    let both = Parts { channels: Channels { log: true, mcp: true }, ..few.clone() };
    assert_eq!(heads(&both)[..2], ["Reporting by tools", "Reporting by `optio.log`"]);
    let mcp = Parts { channels: Channels { log: false, mcp: true }, ..few.clone() };
    assert_eq!(heads(&mcp), ["Reporting by tools", "Deliverables", "Messages of castra", "Instructions"]);
    assert!(!instructions(&mcp).contains("optio.log"));
    let none = Parts { channels: Channels { log: false, mcp: false }, instructions: " \n", ..few };
    assert_eq!(heads(&none), ["Messages of castra"]);
    assert!(instructions(&none).contains("You are in a conversation."));
}

#[test]
fn the_user_s_own_words_and_the_code_are_in_it() {
    let text = instructions(&parts());
    assert!(
        text.contains("\n## Instructions\n\nCount the {{files}}.\n\n## Notes\n\nThe network is closed.\n"),
        "{text}"
    );
    assert!(text.contains("`System[k3v9]:`"), "{text}");
}

#[test]
fn tools_are_those_of_the_enabled_keywords() {
    let names = |enabled| tool_rows(enabled).map(|(_, name, _)| name).collect::<Vec<_>>();
    assert_eq!(names(&NONE), ["report_status", "deliver", "ask_user", "done", "fail"]);
    assert_eq!(names(&ALL), ["report_status", "deliver", "ask_user", "message_caller", "done", "fail"]);
    for (row, name, about) in tool_rows(&ALL) {
        let page = protocol(Channels { log: false, mcp: true }, &ALL, &Paths::fresh(), "k3v9");
        let about = about.replace("{deliverables}", "deliverables/");
        assert!(page.contains(&format!("- `{name}` {about}")), "{}", row.word);
    }
}

#[test]
fn in_a_folder_of_the_user_s_everything_is_beside() {
    let text = instructions(&Parts { paths: Paths::beside(), enabled: ALL, ..parts() });
    for name in ["optio.log", "resume.log", "deliverables/", "uploads/"] {
        let all = text.matches(name).count();
        assert_eq!(text.matches(&format!(".castra/{name}")).count(), all, "{name}");
        assert!(all > 0, "{name}");
    }
}

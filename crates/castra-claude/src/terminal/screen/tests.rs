//! Screens of both CLIs, and near misses of them. The recorded ones are tested in `tests/terminal.rs`.

use super::*;

const RULE: &str = "────────────────────────────────────────────────────────";

fn of(text: &str) -> Screen {
    let rows: Vec<String> = text.lines().map(|row| row.replace("----", RULE)).collect();
    screen(&rows, "✳ Claude Code")
}

fn prompt(text: &str) -> Screen {
    Screen::Prompt(Composer { text: text.into(), shell: false })
}

#[test]
fn a_composer_is_between_two_rules_above_a_known_footer() {
    for (text, expected) in [
        ("----\n❯\n----\n  ? for shortcuts", prompt("")),
        ("----\n❯\u{a0}\n----\n  ? for shortcuts", prompt("")),
        ("● said\n----\n❯ half a\n  thought\n----\n  ⏸ manual mode on", prompt("half a\nthought")),
        ("----\n❯ x\n----", prompt("x")),
        ("----\n❯ still?\n----\n  1 shell", prompt("still?")),
        ("----\n❯ still?\n----\n  one shell", Screen::Unknown),
        ("----\n❯\n----\n  ⏵⏵ accept edits on (shift+tab to cycle)\n\n\n", prompt("")),
        (
            "----\n❯\n----\n  ⏸ manual mode on · esc to interrupt",
            Screen::Busy(Composer { text: String::new(), shell: false }),
        ),
        ("----\n!\n----\n  ! for shell mode", Screen::Prompt(Composer { text: String::new(), shell: true })),
        (
            "----\n❯ [Pasted text #1 +12 lines]\n----\n  paste again to expand",
            prompt("[Pasted text #1 +12 lines]"),
        ),
        ("----\n❯ one\n  two\n----\n   Ctrl+Y to paste deleted text", prompt("one\ntwo")),
        // What looks like a rule in its text is indented.
        ("----\n❯ a\n  ----\n  b\n----\n  ? for shortcuts", prompt(&format!("a\n{RULE}\nb"))),
        // Higher than the window.
        ("  1\n  2\n\n  4\n  5\n  6\n  7\n  8\n----\n  ⏸ manual mode on", prompt("1\n2\n\n4\n5\n6\n7\n8")),
        (
            "❯ 1\n  2\n  3\n  4\n  5\n  6\n  7\n  8\n----\n  ⏸ manual mode on",
            prompt("1\n2\n3\n4\n5\n6\n7\n8"),
        ),
        ("● said\n─── ↑ 180 more ----\n  181\n  182\n----\n  ⏸ manual mode on", prompt("181\n182")),
        ("● said\n─── ↑ 180 more ----\n  181\n● said\n----\n  ⏸ manual mode on", Screen::Unknown),
        ("  1\n● said\n  3\n  4\n  5\n  6\n  7\n  8\n----\n  ⏸ manual mode on", Screen::Unknown),
        ("  1\n  2\n  3\n  4\n  5\n  6\n  7\n  8\n----", Screen::Unknown),
        // A menu below the composer takes Enter for a choice.
        ("----\n❯ /mo\n----\n  /model   Set it\n  /mode\n  /mobile\n  /more", Screen::Unknown),
        ("----\n❯ @a\n----\n  + a.txt", Screen::Unknown),
        ("----\n❯\n", Screen::Unknown),
        ("❯\n----\n  ? for shortcuts", Screen::Unknown),
        ("----\n$ ls\n----\n  ? for shortcuts", Screen::Unknown),
        ("root@host:~# ", Screen::Unknown),
        ("", Screen::Unknown),
    ] {
        assert_eq!(of(text), expected, "{text}");
    }
}

const DIALOG: &str = "● I will.\n----\n Bash command\n\n   touch a.txt\n\n Do you want to proceed?\n ❯ 1. Yes\n   2. Yes, and \
always allow access to\n      this project\n   3. No\n\n Esc to cancel · Tab to amend";

#[test]
fn a_dialog_is_whole_or_unknown() {
    let Screen::Dialog(dialog) = of(DIALOG) else { panic!("{:?}", of(DIALOG)) };
    let choice = |number, label: &str, selected| Choice { number, label: label.into(), selected };
    assert_eq!(
        dialog,
        Dialog {
            kind: DialogKind::Permission,
            title: "Bash command".into(),
            body: "touch a.txt".into(),
            question: "Do you want to proceed?".into(),
            options: vec![
                choice(1, "Yes", true),
                choice(2, "Yes, and always allow access to this project", false),
                choice(3, "No", false),
            ],
        }
    );
    for (what, broken) in [
        ("no cursor", DIALOG.replace('❯', " ")),
        ("two cursors", DIALOG.replace("   3. No", " ❯ 3. No")),
        ("an option is missing", DIALOG.replace("   2. ", "   4. ")),
        ("no hint", DIALOG.replace(" Esc to cancel · Tab to amend", "")),
        ("no heading", DIALOG.replace("----\n", "")),
        ("another question", DIALOG.replace("Do you want to proceed?", "Launch the missiles?")),
        (
            "one option",
            DIALOG.replace("   2. Yes, and always allow access to\n      this project\n   3. No\n", ""),
        ),
        ("history", format!("{DIALOG}\n----\n❯\n----\n  ? for shortcuts")),
    ] {
        assert!(!matches!(of(&broken), Screen::Dialog(_)), "{what}: {:?}", of(&broken));
    }
}

#[test]
fn the_title_tells_what_a_full_composer_hides() {
    let rows = [RULE, "❯ the third", RULE, "        ● high · /effort"];
    let composer = || Composer { text: "the third".into(), shell: false };
    assert_eq!(screen(&rows, "✳ x"), Screen::Prompt(composer()));
    assert_eq!(screen(&rows, "⠂ x"), Screen::Busy(composer()));
    assert_eq!(screen(&rows, "◐ Claude Code"), Screen::Busy(composer()));
}

#[test]
fn a_conversation_about_a_first_run_is_none() {
    let page = " Quick safety check: Is this yours?\n ❯ 1. Yes, I trust this folder\n   2. No, exit\n\n Enter to confirm";
    assert_eq!(of(page), Screen::FirstRun(FirstRun::Trust));
    assert_eq!(of(&format!("{page}\n----\n❯\n----\n  ? for shortcuts")), prompt(""));
}

/// Rows as 2.1.329 and 2.1.197 draw them.
#[test]
fn a_hint_is_dim_and_a_text_is_not() {
    let said = "\u{1b}[0;38;5;246;48;5;237m❯ \u{1b}[0;38;5;231;48;5;237moverloaded\u{1b}[m\n";
    for (row, hint) in [
        ("❯\u{a0}\u{1b}[0;7mR\u{1b}[0;2mesend your message to try again\u{1b}[m", true),
        ("\u{1b}[0;38;5;2m❯\u{1b}[m\u{a0}\u{1b}[0;7;2mR\u{1b}[0;2mesend\u{1b}[22m \u{1b}[m", true),
        ("❯\u{a0}hi\u{1b}[0;7m \u{1b}[m", false),
        ("❯\u{a0}\u{1b}[0;7mh\u{1b}[mi", false),
        ("❯\u{a0}\u{1b}[0;7mh\u{1b}[0;38;5;2mi", false),
        ("❯\u{a0}\u{1b}[0;2mdim\u{1b}[m and not", false),
        ("❯\u{a0}\u{1b}[0;7m \u{1b}[m", false),
        ("❯\u{a0}", false),
    ] {
        assert_eq!(
            is_hint(&format!("{said}{RULE}\n{row}\n{RULE}\n  \u{1b}[0;2m? for shortcuts")),
            hint,
            "{row:?}"
        );
    }
    assert!(!is_hint("\u{1b}[0;2mnothing is asked"));
}

//! A terminal session in somebody's terminal, with the real CLI: tmux is the terminal, and says what is on it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use castra_proto::api::{Screen, ScreenSize};
use castra_proto::{Problem, RunState};
use castra_testkit::tmux::Terminal;
use castra_testkit::{Cli, DEADLINE, Daemon, Session, World, clis, wait_for, wait_until};
use rustix::process::Signal;
use serde_json::json;

const CASTRA: &str = env!("CARGO_BIN_EXE_castra");

const SCRIPT: &str = r#"
[[rule]]
name = "tool"
when.last_user.contains = "make it"
reply.blocks = [{ tool_use = { name = "Bash", input = { command = "touch made", description = "Make it" } } }]
[[rule]]
name = "made"
when.tool_result = {}
reply.text = "It is made."
[[rule]]
name = "echo"
reply.text = "You said: {{last_user}}"
"#;

fn first(test: impl FnOnce(&World, &mut Daemon<'_>)) {
    let cli = clis().remove(0);
    let world = World::new(CASTRA, &cli.path, SCRIPT);
    test(&world, &mut world.daemon());
}

/// On a terminal, at its prompt.
fn tui(daemon: &Daemon<'_>, name: &str) -> Session {
    let session = daemon.session(json!({"mode": "terminal", "name": name}));
    session.wait_idle();
    session
}

fn screen(session: &Session) -> Screen {
    session.http.get(&session.path("/screen")).expect(200)
}

fn until_size(session: &Session, rows: u16, cols: u16) {
    let wanted = ScreenSize { rows, cols };
    wait_until(&format!("a terminal of {cols}x{rows}"), || screen(session).size == wanted, DEADLINE);
}

/// What stands in claude's composer.
fn composed(rows: &[String]) -> Option<&str> {
    let last = rows.iter().rev().find_map(|row| row.strip_prefix('❯'));
    last.map(str::trim)
}

fn until_composed(session: &Session, text: &str) {
    wait_until(text, || composed(&screen(session).rows) == Some(text), DEADLINE);
}

fn until_answered(session: &Session, text: &str) {
    let answer = format!("You said: {text}");
    let said = |screen: &Screen| screen.rows.iter().any(|row| row.contains(&answer));
    wait_until(&answer, || said(&screen(session)), DEADLINE);
}

/// What a program may have left behind, as tmux tells it: alternate screen, cursor, insertion, keypad, mouse.
const MODES: &str = "#{alternate_on} #{cursor_flag} #{insert_flag} #{keypad_flag} #{keypad_cursor_flag} #{mouse_any_flag} #{pane_title}";

#[test]
fn attach_is_the_tui_and_leaves_the_terminal_as_it_was() {
    for (cli, fullscreen) in clis().iter().zip([false, true]) {
        let world = World::new(CASTRA, &cli.path, SCRIPT);
        let daemon = world.daemon();
        let spec =
            json!({"mode": "terminal", "name": "tui", "tui": {"fullscreen": fullscreen, "focus": false}});
        let session = daemon.session(spec);
        session.wait_idle();
        looked_at(cli, &world, &session);
    }
}

fn looked_at(cli: &Cli, world: &World, session: &Session) {
    let script = "echo what stood here before; stty -g > before; \"$CASTRA\" attach tui; echo \"exit $?\"; stty -g > after";
    let terminal = Terminal::run(world, "person", (30, 100), script);
    terminal.until("Ctrl-\\ leaves");
    until_size(session, 30, 100);
    // Before somebody types, the notice is gone, and what is there is claude's own.
    terminal.until_some("claude's own last row", |screen| (!screen.contains("Ctrl-\\")).then_some(()));
    let before = terminal.tells("#{pane_title}");
    assert!(before.contains("Claude"), "{cli}: claude's own title, not {before:?}");
    terminal.enter("hello 漢字 there");
    terminal.until("You said: hello 漢字 there");
    terminal.resize(22, 80);
    until_size(session, 22, 80);
    let shown = terminal.until_some("what the daemon has", |theirs| {
        let rows = screen(session).rows;
        let theirs: Vec<String> = theirs.lines().map(|row| row.trim_end().to_owned()).collect();
        (rows == theirs).then_some(rows)
    });
    assert!(shown.iter().any(|row| row.starts_with('❯')), "{cli}: {shown:#?}");

    terminal.keys(&["C-\\"]);
    terminal.until("exit 0");
    let said = terminal.history();
    assert!(said.contains("what stood here before"), "{cli}: {said}");
    assert!(said.contains("the session goes on; `castra attach tui` returns to it"), "{cli}: {said}");
    let read = |name: &str| std::fs::read_to_string(world.folder().join(name)).unwrap();
    wait_until(
        "the modes behind it",
        || world.folder().join("after").exists() && !read("after").is_empty(),
        DEADLINE,
    );
    assert_eq!(read("after"), read("before"), "{cli}: the terminal's modes");
    let modes = terminal.tells(MODES);
    assert!(modes.starts_with("0 1 0 0 0 0 ") && !modes.contains("Claude"), "{cli}: {modes}");
    session.wait_idle();
}

#[test]
fn who_only_looks_types_nothing_and_has_no_say_in_the_size() {
    first(|world, daemon| {
        let session = tui(daemon, "tui");
        let before = screen(&session).size;
        let reader =
            Terminal::run(world, "reader", (20, 60), "\"$CASTRA\" attach --read-only --detach-key 'C-]' tui");
        reader.until("Ctrl-] leaves");
        reader.keys(&["not for claude", "Enter"]);
        reader.until("read-only");
        // A program's keys are seen there, and nobody else's.
        assert_eq!(world.cli(["type", "tui", "from a program"]).ok(), "");
        until_composed(&session, "from a program");
        assert_eq!(world.cli(["type", "tui", "Enter"]).ok(), "");
        until_answered(&session, "from a program");
        reader.until("You said: from a program");
        let shown = screen(&session);
        assert!(!shown.rows.iter().any(|row| row.contains("not for claude")), "{:#?}", shown.rows);
        assert_eq!(shown.size, before);
        // This key is one of its own here, and the other one leaves.
        reader.keys(&["C-\\"]);
        reader.keys(&["C-]"]);
        reader.until("the session goes on");
    });
}

#[test]
fn keys_need_the_scope_that_permissions_need() {
    first(|world, daemon| {
        let session = tui(daemon, "tui");
        let token = |scope: &str| world.cli(["token", "create", "--scope", scope]).ok().trim().to_owned();
        let drive = token("drive");
        let keys = json!({"keys": ["x"]});
        let refused: Problem = daemon.http_as(&drive).post(&session.path("/keys"), &keys).expect(403);
        assert_eq!(refused.code, castra_proto::ErrorCode::Forbidden);
        assert_eq!(daemon.http_as(&token("approve")).post(&session.path("/keys"), &keys).status, 204);
        until_composed(&session, "x");

        let url = format!("http://{}", daemon.addr());
        let script = format!("export CASTRA_URL={url} CASTRA_TOKEN={drive}; \"$CASTRA\" attach tui");
        let person = Terminal::run(world, "person", (40, 100), &script);
        person.until("❯\u{a0}x");
        person.keys(&["y"]);
        person.until("keys need the scope `approve`");
        assert_eq!(composed(&screen(&session).rows), Some("x"));
        person.keys(&["C-\\"]);
        person.until("the session goes on");
    });
}

#[test]
fn a_daemon_that_is_killed_takes_nobody_from_their_seat() {
    first(|world, daemon| {
        let session = tui(daemon, "tui");
        let one = Terminal::run(
            world,
            "one",
            (30, 100),
            "\"$CASTRA\" --no-daemon-start attach tui; echo \"exit $?\"",
        );
        let two = Terminal::run(
            world,
            "two",
            (40, 120),
            "\"$CASTRA\" --no-daemon-start attach tui; echo \"exit $?\"",
        );
        until_size(&session, 30, 100);
        one.enter("before the storm");
        for terminal in [&one, &two] {
            terminal.until("You said: before the storm");
        }
        let claude = session.show().pid;
        daemon.kill9();
        for terminal in [&one, &two] {
            terminal.until("the daemon is away; waiting for it");
        }
        // Typed at nobody: it must not arrive later, at another screen.
        one.keys(&["lost", "Enter"]);
        daemon.start_again();
        for terminal in [&one, &two] {
            terminal.until_some("the TUI again", |screen| {
                (screen.contains("before the storm") && !screen.contains("is away")).then_some(())
            });
        }
        two.enter("after the storm");
        for terminal in [&one, &two] {
            terminal.until("You said: after the storm");
            assert!(!terminal.screen().contains("lost"));
        }
        until_size(&session, 30, 100);
        assert_eq!(session.show().pid, claude, "the same claude");

        // Its end is told, and is no failure of theirs.
        session.act("stop");
        for terminal in [&one, &two] {
            let screen = terminal.until("exit 0");
            assert!(screen.contains("the run has ended; `castra resume tui` continues"), "{screen}");
        }
        // So it is for whoever comes later.
        let late = Terminal::run(world, "late", (30, 100), "\"$CASTRA\" attach tui; echo \"exit $?\"");
        assert!(late.until("exit 0").contains("the run has ended"));
    });
}

#[test]
fn signals_and_closed_windows_leave_the_session_and_the_terminal() {
    first(|world, daemon| {
        let session = tui(daemon, "tui");
        let attached =
            || world.processes().into_iter().find(|one| one.arguments().ends_with("castra attach tui"));
        let script = "stty -g > before; \"$CASTRA\" attach tui; echo \"exit $?\"; stty -g > after; cmp before after && echo same";
        for (signal, exit) in [(Signal::TERM, 143), (Signal::HUP, 129), (Signal::INT, 130), (Signal::QUIT, 0)]
        {
            let terminal = Terminal::run(world, "person", (30, 100), script);
            terminal.until("❯");
            assert!(wait_for("castra attach", attached, DEADLINE).signal(signal));
            let screen = terminal.until(&format!("exit {exit}"));
            assert!(screen.contains("the session goes on"), "{screen}");
            terminal.until("same");
            assert!(terminal.tells(MODES).starts_with("0 1 0 0 0 0 "));
            terminal.close();
        }
        let terminal = Terminal::run(world, "person", (30, 100), script);
        terminal.until("❯");
        let process = wait_for("castra attach", attached, DEADLINE);
        terminal.close();
        wait_until("castra attach to end with its window", || !process.is_alive(), DEADLINE);
        assert_eq!(session.show().state, RunState::Idle);
    });
}

#[test]
fn without_a_terminal_the_next_step_is_named() {
    first(|world, daemon| {
        let session = tui(daemon, "tui");
        let refused = world.cli(["attach", "tui"]);
        assert_eq!((refused.code, refused.stdout.as_str()), (2, ""));
        assert!(refused.stderr.contains("hint: `castra screen ID`"), "{}", refused.stderr);

        // Which works there.
        let text = world.cli(["screen", "tui"]).ok();
        assert!(text.contains("Claude Code") && text.contains('❯') && !text.contains('\u{1b}'), "{text}");
        assert!(world.cli(["screen", "tui", "--ansi"]).ok().contains("\u{1b}[0;"));
        let shown = world.cli(["screen", "tui", "--json"]).json();
        assert_eq!(shown["size"], json!({"rows": 50, "cols": 200}));
        assert_eq!(world.cli(["type", "tui", "--literal", "--", "-v Enter"]).ok(), "");
        until_composed(&session, "-v Enter");
        world.cli(["type", "tui", "C-u", "next", "Space", "one"]).ok();
        until_composed(&session, "next one");
        world.cli(["type", "tui", "Enter"]).ok();
        until_answered(&session, "next one");

        // There is no shell behind claude that would bring it back.
        world.cli(["type", "tui", "C-z"]).ok();
        world.cli(["type", "tui", "still", "Space", "here"]).ok();
        until_composed(&session, "still here");
        world.cli(["type", "tui", "Enter"]).ok();
        until_answered(&session, "still here");

        let table = [
            (vec!["type", "tui", "x", "Entre"], "`Entre` is no key; the nearest is Enter"),
            (vec!["type", "tui", "C-Enter"], "a terminal has no way to send this combination"),
            (vec!["attach", "tui", "--json"], "a terminal is no JSON"),
        ];
        for (args, said) in table {
            let refused = world.cli(&args);
            assert!(refused.code == 2 && refused.stderr.contains(said), "{args:?}: {refused:?}");
        }
        assert_eq!(composed(&screen(&session).rows), Some(""), "all keys or none");
        let stream = daemon.session(json!({"name": "stream"}));
        let refused: Problem = stream.http.get(&stream.path("/screen")).expect(400);
        assert!(refused.detail.contains("has no terminal"), "{refused:?}");
    });
}

#[test]
fn a_dialog_is_answered_at_the_keyboard() {
    first(|world, daemon| {
        let session = tui(daemon, "tui");
        let person = Terminal::run(world, "person", (40, 100), "\"$CASTRA\" attach tui");
        person.until("❯");
        session.send("make it");
        person.until("touch made");
        session.wait_permission();
        person.keys(&["1"]);
        wait_until(
            "the tool's work",
            || {
                let path = session.show().cwd.unwrap_or_default();
                std::path::Path::new(&path).join("made").exists()
            },
            DEADLINE,
        );
        session.wait_events("the answer", |events| {
            events.iter().any(|event| event.kind.as_str() == "permission_answered").then_some(())
        });
    });
}

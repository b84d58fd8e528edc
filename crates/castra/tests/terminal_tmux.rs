//! `--tmux NAME` with the real CLI: a view for several people, which nobody interprets and whose end ends nothing.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use castra_proto::Session as Shown;
use castra_proto::api::{Page, Screen};
use castra_testkit::tmux::{Terminal, default_tmux, until_tmux_session};
use castra_testkit::{DEADLINE, Daemon, Session, World, clis, wait_until};
use serde_json::json;

const CASTRA: &str = env!("CARGO_BIN_EXE_castra");

const SCRIPT: &str = r#"
[[rule]]
name = "echo"
reply.text = "You said: {{last_user}}"
"#;

fn first(test: impl FnOnce(&World, &mut Daemon<'_>)) {
    let cli = clis().remove(0);
    let world = World::new(CASTRA, &cli.path, SCRIPT);
    test(&world, &mut world.daemon());
}

/// A command whose tmux is this world's own.
fn castra(world: &World, args: &[&str]) -> castra_testkit::Output {
    world.castra(args).env("TMUX_TMPDIR", world.root()).run()
}

fn sessions(daemon: &Daemon<'_>) -> Vec<Shown> {
    let page: Page<Shown> = daemon.http().get("/api/v1/sessions?all=true").expect(200);
    page.items
}

fn shows(session: &Session, text: &str) -> bool {
    let screen: Screen = session.http.get(&session.path("/screen")).expect(200);
    screen.rows.iter().any(|row| row.contains(text))
}

/// Waits until claude has drawn itself for this window: who types while it takes up a new size may see both mixed.
fn settled(terminal: &Terminal<'_>) {
    let is_rule = |row: &&str| !row.is_empty() && row.chars().all(|c| c == '─');
    terminal.until_some("one composer, drawn for this width", |screen| {
        (screen.lines().filter(is_rule).count() == 2).then_some(())
    });
}

fn listed(world: &World) -> String {
    let output = default_tmux(world, &["list-sessions", "-F", "#{session_name} #{session_attached}"]);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn people_in_tmux_share_one_session_and_end_nothing() {
    first(|world, daemon| {
        let session = daemon.session(json!({"mode": "terminal", "name": "tui"}));
        session.wait_idle();
        // Nobody is here: it is made, and said how to join.
        let made = castra(world, &["attach", "--tmux", "view", "tui"]);
        assert_eq!(
            (made.code, made.stdout.as_str(), made.stderr.as_str()),
            (0, "", "hint: tmux attach -t view\n")
        );
        // The same again is the same view.
        assert_eq!(castra(world, &["attach", "--tmux", "view", "tui"]).code, 0);
        assert_eq!(listed(world), "view 0\n");

        let one = Terminal::run(world, "one", (30, 100), "tmux attach -t view; echo \"left $?\"");
        let two =
            Terminal::run(world, "two", (36, 120), "\"$CASTRA\" attach --tmux view tui; echo \"left $?\"");
        for terminal in [&one, &two] {
            terminal.until("❯");
        }
        assert_eq!(listed(world), "view 2\n");
        settled(&one);
        one.enter("said by one");
        two.until("You said: said by one");
        // Castra's own key is none in there: the view is everybody's.
        two.keys(&["C-\\"]);
        settled(&two);
        two.enter("said by two");
        one.until("You said: said by two");

        // tmux's own way out.
        two.keys(&["C-b", "d"]);
        let screen = two.until("left 0");
        assert!(screen.contains("`tmux attach -t view` or `castra attach tui` returns to it"), "{screen}");
        assert!(default_tmux(world, &["kill-session", "-t", "=view"]).status.success());
        one.until("left");
        assert!(session.show().pid.is_some(), "claude lives on");
        assert_eq!(session.ask("and now?"), "You said: and now?");

        // A view ends with what it shows.
        assert_eq!(castra(world, &["attach", "--tmux", "view", "tui"]).code, 0);
        wait_until("the view", || shows(&session, "and now?"), DEADLINE);
        until_tmux_session(world, "view", true);
        session.act("stop");
        until_tmux_session(world, "view", false);
    });
}

#[test]
fn run_opens_the_view_from_the_start_and_takes_nobodys_name() {
    first(|world, daemon| {
        let env = world.run_flags();
        let env: Vec<&str> = env.iter().map(String::as_str).collect();
        let run = |name: &str, prompt: &[&str]| {
            castra(world, &[&["run", "--tmux", name, "--fresh"], env.as_slice(), prompt].concat())
        };
        assert!(
            default_tmux(world, &["-f", "/dev/null", "new-session", "-d", "-s", "taken", "sleep 1000"])
                .status
                .success()
        );
        let refused = run("taken", &["hello"]);
        assert_eq!(refused.code, 2);
        assert!(
            refused.stderr.starts_with("error: tmux has a session called taken already\n"),
            "{}",
            refused.stderr
        );
        assert_eq!(sessions(daemon).len(), 0, "nothing was made");
        assert_eq!(listed(world), "taken 0\n", "nobody was ended");

        let hazard = "$(id >witness); `id >witness` #(id >witness) #{pane_id} \"; id >witness";
        let answered = run("view", &["--", hazard]);
        assert_eq!(answered.ok(), format!("You said: {hazard}\n"));
        let all = sessions(daemon);
        let [made] = all.as_slice() else { panic!("{all:#?}") };
        assert_eq!(serde_json::to_value(&made.spec).unwrap()["tmux"], "view");
        let session = Session::of(daemon.http(), made.id.to_string());
        session.wait_idle();
        let person = Terminal::run(world, "person", (30, 100), "tmux attach -t view");
        person.until("You said: $(id");

        // One session has one view of that name, another has none.
        let again = run("view", &["hello"]);
        assert!(again.code == 2 && again.stderr.contains("tmux attach -t view"), "{again:?}");
        let other = daemon.session(json!({"mode": "terminal", "name": "other"}));
        other.wait_idle();
        assert_eq!(castra(world, &["attach", "--tmux", "view", "other"]).code, 2);
        assert_eq!(castra(world, &["attach", "--tmux", "other", "other"]).code, 0);
        until_tmux_session(world, "other", true);
        for name in ["#(touch witness)", "$(touch witness)", "a;b", "a:b", "a.1", "-d", "#{pane_id}", ""] {
            let refused = castra(world, &["attach", &format!("--tmux={name}"), made.id.to_string().as_str()]);
            assert_eq!(refused.code, 2, "{name:?}: {refused:?}");
        }
        for id in ["$(touch witness)", "; touch witness", "#(touch witness)", "#{pane_id}"] {
            let refused = castra(world, &["attach", "--tmux", "none", "--", id]);
            assert!(refused.code == 1 && refused.stderr.contains("there is no session"), "{id}: {refused:?}");
        }
        for folder in [world.folder(), world.user_home(), world.root().to_owned()] {
            assert!(!folder.join("witness").exists(), "{}", folder.display());
        }
    });
}

/// The token of a remote daemon reaches the view, and nobody who looks at processes or at tmux's environment.
#[test]
fn a_token_is_handed_over_and_seen_by_nobody() {
    first(|world, daemon| {
        let session = daemon.session(json!({"mode": "terminal", "name": "tui"}));
        session.wait_idle();
        let created = world.cli(["token", "create", "--scope", "approve", "--json"]).json();
        let text = |name: &str| created[name].as_str().unwrap().to_owned();
        let (id, token) = (text("id"), text("token"));
        let temporary = world.root().join("tmp");
        std::fs::create_dir(&temporary).unwrap();
        let made = world
            .castra(["attach", "--tmux", "view", "tui"])
            .env("TMUX_TMPDIR", world.root())
            .env("TMPDIR", &temporary)
            .env("CASTRA_URL", format!("http://{}", daemon.addr()))
            .env("CASTRA_TOKEN", &token)
            .run();
        assert_eq!(made.code, 0, "{made:?}");
        let person = Terminal::run(world, "person", (30, 100), "tmux attach -t view");
        person.until("❯");
        settled(&person);
        person.enter("over the net");
        person.until("You said: over the net");
        assert_eq!(castra_testkit::proc::mentioning(&token), [], "in no argument and in no environment");
        let environment = default_tmux(world, &["show-environment", "-t", "=view:"]);
        let global = default_tmux(world, &["show-environment", "-g"]);
        for said in [environment.stdout, global.stdout] {
            assert!(!String::from_utf8(said).unwrap().contains(&token));
        }
        assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0, "the file was read and removed");

        // Revoked: the window says so, and waits until that has been read.
        world.cli(["token", "rm", id.as_str()]).ok();
        person.until("the token has ended");
        person.until("Enter closes this window");
        // The first one may still go to what has just ended.
        person.keys(&["Enter", "Enter"]);
        until_tmux_session(world, "view", false);
    });
}

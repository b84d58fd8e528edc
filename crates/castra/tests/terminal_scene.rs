//! Everybody at one session at once: two clients of a tmux view, the page in Chromium, a ttyd client, and one who has
//! stopped reading. Their windows change all the time while claude writes; in the end all show the same.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "terminal_page/mod.rs"]
mod chromium;
mod terminal;
#[path = "terminal_web/mod.rs"]
mod tty;

use castra_proto::api::ScreenSize;
use castra_testkit::tmux::{Terminal, default_tmux};
use castra_testkit::{DEADLINE, Daemon, Events, Session, World, clis, fake_claude, proc, wait_until};
use chromium::Browser;
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use terminal::{CASTRA, PAINTED, answered, data_of, screen, type_keys};
use tty::Tty;

/// What a terminal draws with some effort: wide and combined letters, a table, code, a long line.
const SCRIPT: &str = r#"
[[rule]]
name = "slow"
when.last_user.contains = "slowly"
reply.text = """
| 漢字 | é 😀 | right |\n|---|---|--:|\n| a | b | 1 |\n| ｆｕｌｌ | 한글 | 22 |\n\n```sh\necho "──┐ │ └──"\n```\n
1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 and that is the end"""
reply.pace = { chunk_chars = 3, delay_ms = 40 }
[[rule]]
name = "echo"
reply.text = "You said: {{last_user}}"
"#;

/// Everybody who looks, each in a window of its own.
struct Scene<'w> {
    world: &'w World,
    session: Session,
    /// Every event, as a subscriber pieces it together.
    live: Events,
    people: [Terminal<'w>; 2],
    page: Browser,
    ttyd: Tty,
    ttyd_window: (u16, u16),
    stalled: Tty,
    bearer: String,
    addr: std::net::SocketAddr,
}

/// Of who has stopped reading: so large that it decides nothing.
const STALLED: (u16, u16) = (220, 70);

impl<'w> Scene<'w> {
    fn set(world: &'w World, daemon: &Daemon<'_>, session: Session) -> Self {
        let live = session.follow(0);
        let made = world.castra(["attach", "--tmux", "view", "tui"]).env("TMUX_TMPDIR", world.root()).run();
        assert_eq!(made.code, 0, "{made:?}");
        let one = Terminal::run(world, "one", (30, 100), "tmux attach -t view");
        let two = Terminal::run(world, "two", (36, 120), "\"$CASTRA\" attach --tmux view tui");
        let mut page = Browser::desktop();
        page.go(world.cli(["open", "tui"]).ok().trim());
        page.until_state("open");
        let bearer = format!("Bearer {}", daemon.token(&json!({"scope": "approve"})).token);
        let addr = daemon.addr();
        let ttyd_window = (110, 34);
        let ttyd = sit(addr, &session, &bearer, "tty", ttyd_window);
        let stalled = sit(addr, &session, &bearer, "castra.tty", STALLED);
        Self { world, session, live, people: [one, two], page, ttyd, ttyd_window, stalled, bearer, addr }
    }

    /// All windows change at once, again and again, with a lull now and then, in which castra can type; until `is_over`.
    /// Only `stalled` keeps still, and takes nothing.
    fn storm(&mut self, is_over: impl FnOnce(&Session)) {
        let over = AtomicBool::new(false);
        let (over, session) = (&over, &self.session);
        let began = Instant::now();
        let is_lull = move || began.elapsed().as_millis() % 3000 > 2000;
        let sizes = |step: u16| {
            let goes_on = move |_: &u16| {
                while is_lull() && !over.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(20));
                }
                !over.load(Ordering::Relaxed)
            };
            (0_u16..).take_while(goes_on).map(move |n| n * step % 37)
        };
        let [one, two] = &self.people;
        let (page, ttyd) = (&mut self.page, &mut self.ttyd);
        std::thread::scope(|scope| {
            scope.spawn(move || sizes(5).for_each(|n| one.resize(20 + n / 2, 80 + n)));
            scope.spawn(move || sizes(11).for_each(|n| two.resize(55 - n, 140 - n)));
            scope.spawn(move || {
                sizes(7).for_each(|n| page.set_window(700 + 13 * u32::from(n), 420 + 9 * u32::from(n)))
            });
            scope.spawn(move || {
                sizes(3).for_each(|n| {
                    ttyd.resize(75 + n, 22 + n / 3);
                    ttyd.take();
                });
            });
            // Also when it panics: nobody would ever end.
            let _end = End(over);
            is_over(session);
        });
    }

    /// Everybody's last window; the size that follows.
    fn calm(&mut self, ttyd: (u16, u16)) -> ScreenSize {
        self.people.iter().for_each(|person| person.resize(31, 130));
        self.page.set_window(1500, 950);
        self.ttyd_window = ttyd;
        self.ttyd.resize(ttyd.0, ttyd.1);
        self.decided()
    }

    /// The least rows and the least columns of all who may type, once that is the size.
    #[track_caller]
    fn decided(&mut self) -> ScreenSize {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let windows = [self.page.told_window(), self.view_window(), self.ttyd_window, STALLED];
            let least = ScreenSize {
                rows: windows.map(|window| window.1).into_iter().min().unwrap(),
                cols: windows.map(|window| window.0).into_iter().min().unwrap(),
            };
            self.ttyd.take();
            let size = screen(&self.session).size;
            if size == least {
                return size;
            }
            assert!(
                Instant::now() < deadline,
                "{size:?}, and the windows of page, tmux and others: {windows:?}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Columns and rows of tmux's window, which all its clients share.
    fn view_window(&self) -> (u16, u16) {
        let format = "#{window_width} #{window_height}";
        let output = default_tmux(self.world, &["display-message", "-p", "-t", "=view:", format]);
        let said = String::from_utf8(output.stdout).unwrap();
        let (columns, rows) = said.trim().split_once(' ').unwrap();
        (columns.parse().unwrap(), rows.parse().unwrap())
    }

    /// The rows that everybody shows, once they are the daemon's and `wanted`.
    #[track_caller]
    fn all_show(&mut self, what: &str, wanted: impl Fn(&[String]) -> bool) -> Vec<String> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let ours = screen(&self.session);
            let height = usize::from(ours.size.rows);
            let ours = shown(ours.rows, height);
            let theirs = self.rows(height);
            if wanted(&ours) && theirs.iter().all(|(_, rows)| *rows == ours) {
                return ours;
            }
            assert!(Instant::now() < deadline, "{what}: {ours:#?}, and {theirs:#?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What each of them shows now.
    fn rows(&mut self, height: usize) -> [(&'static str, Vec<String>); 5] {
        // Whoever says and takes nothing for a minute is gone, and comes again.
        if self.stalled.closed.is_some() {
            self.stalled = sit(self.addr, &self.session, &self.bearer, "castra.tty", STALLED);
        }
        let tty = |tty: &mut Tty| {
            tty.take();
            shown(tty.terminal.screen_text(), height)
        };
        let [one, two] = self.people.each_ref().map(|person| shown(person.screen().lines(), height));
        [
            ("one", one),
            ("two", two),
            ("page", shown(self.page.rows(), height)),
            ("ttyd", tty(&mut self.ttyd)),
            ("stalled", tty(&mut self.stalled)),
        ]
    }

    /// The subscriber has every event once, and the store no other.
    fn nothing_is_lost(&self) {
        let head = self.session.wait_idle().head_seq;
        let all = || self.live.seen().events.last().is_some_and(|event| event.seq >= head);
        wait_until("the subscriber to have all", all, DEADLINE);
        let text = |events: Vec<castra_proto::Event>| -> Vec<String> {
            events.iter().map(|event| serde_json::to_string(event).unwrap()).collect()
        };
        let (seen, stored) = (text(self.live.events()), text(self.session.events()));
        assert_eq!(seen, stored[..seen.len()]);
        let numbers: Vec<u64> = self.live.events().iter().map(|event| event.seq).collect();
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    }
}

/// A seat at the terminal, with its first screen.
fn sit(
    addr: std::net::SocketAddr,
    session: &Session,
    bearer: &str,
    protocol: &str,
    (columns, rows): (u16, u16),
) -> Tty {
    let headers = [("authorization", bearer)];
    let mut tty = Tty::open(addr, &session.path("/terminal/ws"), protocol, &headers).unwrap();
    tty.join("", columns, rows);
    tty.until("a screen", |tty| tty.output > 0);
    tty
}

/// Says that a storm is over.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The first rows of a picture, as they look.
fn shown(rows: impl IntoIterator<Item = impl AsRef<str>>, height: usize) -> Vec<String> {
    let look = |row: &str| row.replace('\u{a0}', " ").trim_end().to_owned();
    let mut rows: Vec<String> = rows.into_iter().take(height).map(|row| look(row.as_ref())).collect();
    rows.resize(height, String::new());
    rows
}

fn contains(rows: &[String], text: &str) -> bool {
    rows.iter().any(|row| row.contains(text))
}

#[test]
fn everybody_at_once_through_a_storm_of_sizes_sees_the_same() {
    for (cli, fullscreen) in clis().iter().zip([true, false]) {
        let world = World::new(CASTRA, &cli.path, SCRIPT);
        let daemon = world.daemon();
        let tui = json!({"fullscreen": fullscreen, "focus": false});
        let session = terminal::terminal(&daemon, json!({"name": "tui", "tui": tui}));
        let before = session.wait_idle();
        let mut scene = Scene::set(&world, &daemon, session.clone());
        scene.decided();
        let texts = ["count slowly", "between the windows", "漢字 and a tail \\"];
        let mut sent = Vec::new();
        scene.storm(|session| {
            sent.extend(texts.map(|text| session.send(text)));
            let first = session.answer_to(&sent[0]);
            assert!(answered(&first).0.ends_with("that is the end"), "{cli}: {first:?}");
        });
        let size = scene.calm((72, 21));
        assert_eq!((size.cols, size.rows), (72, 21), "{cli}: the ttyd client's, which is the least");
        for (text, message) in texts.iter().zip(&sent).skip(1) {
            let message = session.answer_to(message);
            assert_eq!(answered(&message), (format!("You said: {text}").as_str(), true), "{cli}");
        }
        scene.all_show("the last answer", |rows| contains(rows, "You said: 漢字 and a tail"));

        // Who comes back decides again, as the one who typed.
        scene.ttyd.enter("said by ttyd");
        let rows = scene.all_show("a person's answer", |rows| contains(rows, "You said: said by ttyd"));
        assert_eq!(rows.len(), 21, "{cli}");
        wait_until("all turns", || session.show().turns == 4, DEADLINE);
        assert_eq!(session.ask("and by program"), "You said: and by program", "{cli}");
        // Whoever is the least decides.
        scene.page.set_window(420, 300);
        wait_until("the page to say so", || scene.page.told_window().0 < 72, DEADLINE);
        let (columns, rows) = scene.page.told_window();
        assert_eq!(scene.decided(), ScreenSize { rows, cols: columns }, "{cli}");
        scene.page.has_no_faults();
        scene.nothing_is_lost();
        let after = session.wait_idle();
        assert_eq!((after.pid, after.run, after.turns), (before.pid, 1, 5), "{cli}");
        assert_eq!(data_of(&session, "result").len(), 5, "{cli}");
    }
}

#[test]
fn a_flood_and_the_alternate_screen_reach_everybody_and_who_stalls_skips_ahead() {
    const FLOOD: usize = 4_000_000;
    let world = World::new(CASTRA, fake_claude(), SCRIPT);
    let daemon = world.daemon();
    let spec = json!({"name": "tui", "sandbox": "off", "env": {"FAKE_CLAUDE": "none"}});
    let session = terminal::terminal(&daemon, spec);
    session.wait_idle();
    let mut scene = Scene::set(&world, &daemon, session.clone());
    scene.decided();
    // It draws itself anew when it is typed to.
    type_keys(&session, &["x", "C-u"]);
    // In ttyd's words: wait. So it is the daemon that has to hold back, and not the kernel.
    scene.stalled.say("2");
    let before = daemon.process().rss_kib();
    let message = session.send(&format!("spill {FLOOD}"));
    wait_until("the flood", || contains(&screen(&session).rows, "spilled spilled"), DEADLINE);
    scene.storm(|session| {
        assert_eq!(answered(&session.answer_to(&message)).0, "spilled");
    });
    scene.calm((90, 24));
    scene.stalled.say("3");
    type_keys(&session, &["x", "C-u"]);
    scene.all_show("the flood's end", |rows| contains(rows, "? for shortcuts"));
    assert!(scene.stalled.output < FLOOD / 2, "skipped: {} bytes", scene.stalled.output);
    let grown = daemon.process().rss_kib().saturating_sub(before);
    assert!(grown < 64 << 10, "a flood to five viewers cost {grown} KiB");

    let message = session.send("paint");
    let mut expected: Vec<String> = PAINTED.iter().map(|row| (*row).to_owned()).collect();
    expected[17] = format!("{}A", " ".repeat(89));
    let is_painted = |rows: &[String]| rows[..20] == expected;
    scene.all_show("the painting", is_painted);
    let picture = screen(&session);
    let mut rounds = 0;
    scene.storm(|session| {
        wait_until(
            "the size to change and change again",
            || {
                rounds += u32::from(screen(session).size != picture.size);
                rounds > 20
            },
            DEADLINE,
        );
    });
    scene.calm((90, 24));
    // Rows above the cursor that a lower window had no place for are gone, everywhere.
    scene.all_show("one picture", |rows| contains(rows, "kept") && contains(rows, "bXYcdef"));
    type_keys(&session, &["q"]);
    assert_eq!(answered(&session.answer_to(&message)).0, "painted");
    scene.all_show("the first screen", |rows| contains(rows, "? for shortcuts") && contains(rows, "painted"));
    scene.nothing_is_lost();
    assert!(proc::process(session.show().pid.unwrap()).is_some());
}

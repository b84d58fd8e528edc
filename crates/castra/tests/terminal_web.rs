//! Terminals over the WebSocket, with the real CLI: who gets in and who types, what each sees, and how it ends.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "terminal_web/mod.rs"]
mod tty;

use castra_proto::Session as Shown;
use castra_proto::api::{SignedIn, TerminalToken, Ticket};
use castra_proto::{ErrorCode, RunState};
use castra_testkit::{DEADLINE, Daemon, Http, Session, World, clis, wait_for, wait_until};
use hyper::Method;
use serde_json::{Value, json};
use std::time::Duration;
use tty::{Refused, Tty};

const CASTRA: &str = env!("CARGO_BIN_EXE_castra");

const SCRIPT: &str = r#"
[[rule]]
name = "slow"
when.last_user.contains = "slowly"
reply.text = "It goes one 1 two 2 three 3 four 4 five 5 six 6 seven 7 eight 8 nine 9 ten 10 and that is the end of it."
reply.pace = { chunk_chars = 4, delay_ms = 100 }
[[rule]]
name = "echo"
reply.text = "You said: {{last_user}}"
"#;

const PROMPT: &str = "❯";

/// npm's CLI: what differs between versions is tested elsewhere.
fn world() -> World {
    World::new(CASTRA, &clis()[0].path, SCRIPT)
}

fn terminal(daemon: &Daemon<'_>) -> Session {
    let session = daemon.session(json!({"mode": "terminal", "name": "tui"}));
    session.wait_idle();
    session
}

fn bearer(token: &str) -> [(&'static str, String); 1] {
    [("authorization", format!("Bearer {token}"))]
}

/// A viewer with a header, as programs and proxies have.
fn open(daemon: &Daemon<'_>, session: &Session, token: &str, protocols: &str) -> Tty {
    let [(name, value)] = bearer(token);
    Tty::open(daemon.addr(), &session.path("/terminal/ws"), protocols, &[(name, &value)]).unwrap()
}

fn driver(daemon: &Daemon<'_>, session: &Session) -> Tty {
    let approve = daemon.token(&json!({"scope": "approve"})).token;
    let mut tty = open(daemon, session, &approve, "tty");
    tty.join("", 100, 30);
    tty.until_shown(PROMPT);
    tty
}

/// Idle, with so many results.
fn after_turns(session: &Session, turns: u32) -> Shown {
    wait_until("the turn's end", || session.show().turns == turns, DEADLINE);
    session.wait_idle()
}

/// A browser, signed in: what it sends with every request, and the page's half.
struct Browser {
    http: Http,
    cookie: String,
    key: String,
    origin: String,
}

impl Browser {
    fn sign_in(daemon: &Daemon<'_>, ticket: &str) -> Self {
        let origin = format!("http://{}", daemon.addr());
        let http = daemon.http_as("");
        let headers = [("origin", origin.as_str())];
        let reply = http.post_with("/api/v1/sign-in", &headers, &json!({"ticket": ticket}));
        let set = reply.headers["set-cookie"].to_str().unwrap().to_owned();
        let signed: SignedIn = reply.expect(201);
        for part in ["; HttpOnly", "; SameSite=Strict", "; Path=/api/v1"] {
            assert!(set.contains(part), "{set}");
        }
        let cookie = set.split(';').next().unwrap().to_owned();
        assert!(cookie.starts_with(&format!("castra-{}=", daemon.addr().port())), "{cookie}");
        assert!(!cookie.contains(&signed.key), "two halves");
        Self { http, cookie, key: signed.key, origin }
    }

    fn status(&self, path: &str) -> u16 {
        self.http.status_of(Method::GET, path, &self.headers())
    }

    fn headers(&self) -> [(&'static str, &str); 3] {
        [("cookie", &self.cookie), ("castra-key", &self.key), ("sec-fetch-site", "same-origin")]
    }

    fn terminal_token(&self, session: &Session) -> String {
        let path = session.path("/terminal/token");
        self.http.call(Method::GET, &path, &self.headers(), "".into()).expect::<TerminalToken>(200).token
    }

    /// As a browser does: no header but its own.
    fn open(&self, daemon: &Daemon<'_>, session: &Session) -> Result<Tty, Refused> {
        let headers = [("cookie", self.cookie.as_str()), ("origin", self.origin.as_str())];
        Tty::open(daemon.addr(), &session.path("/terminal/ws"), "castra.tty, tty", &headers)
    }
}

fn ticket(http: &Http, request: Value) -> Ticket {
    http.post("/api/v1/sign-in/tickets", &request).expect(201)
}

#[test]
fn a_viewer_types_and_sees_the_answer_and_its_leaving_changes_nothing() {
    let world = world();
    let daemon = world.daemon();
    let session = terminal(&daemon);
    let mut tty = driver(&daemon, &session);
    assert_eq!(tty.protocol.as_deref(), Some("tty"));
    assert_eq!(tty.titles, ["tui"]);
    assert_eq!(tty.settings, [json!({"disableLeaveAlert": true})]);
    tty.enter("plums are purple");
    tty.until_shown("You said: plums are purple");
    let before = after_turns(&session, 1);
    drop(tty);
    // A message that claude is given by program is shown to who comes next.
    assert_eq!(session.ask("and grapes green"), "You said: and grapes green");
    let mut again = driver(&daemon, &session);
    again.until_shown("You said: and grapes green");
    let after = after_turns(&session, 2);
    assert_eq!((after.pid, after.run), (before.pid, before.run));
}

#[test]
fn the_smallest_driver_decides_the_size_and_everybody_is_told() {
    let world = world();
    let daemon = world.daemon();
    let session = terminal(&daemon);
    let read = daemon.token(&json!({"scope": "read"})).token;
    let mut reader = open(&daemon, &session, &read, "castra.tty, tty");
    assert_eq!(reader.protocol.as_deref(), Some("castra.tty"));
    reader.join("", 40, 10);
    reader.until_shown(PROMPT);
    let size = |columns, rows| json!({"columns": columns, "rows": rows, "writable": false});
    assert_eq!(reader.sizes, [size(200, 50)], "who only looks has no say");
    let mut wide = driver(&daemon, &session);
    reader.until("the driver's size", |tty| tty.sizes.last() == Some(&size(100, 30)));
    let mut phone = driver(&daemon, &session);
    phone.say(r#"1{"columns":60,"rows":40}"#);
    reader.until("the least of both", |tty| tty.sizes.last() == Some(&size(60, 30)));
    drop(phone);
    reader.until("the other's again", |tty| tty.sizes.last() == Some(&size(100, 30)));
    // Both show the same.
    wide.type_keys("the same for all");
    wide.until_shown("the same for all");
    wait_until(
        "one screen for both",
        || {
            wide.take();
            reader.take();
            wide.screen().contains("the same for all") && reader.screen() == wide.screen()
        },
        DEADLINE,
    );
}

#[test]
fn who_may_not_type_only_looks_and_strangers_do_not_even_that() {
    let world = world();
    let daemon = world.daemon();
    let session = terminal(&daemon);
    let path = session.path("/terminal/ws");
    let tokens = ["read", "drive", "approve"].map(|scope| daemon.token(&json!({"scope": scope})).token);
    for (token, query, writable) in [
        (&tokens[0], "", false),
        (&tokens[1], "", false),
        (&tokens[2], "?readonly=1", false),
        (&tokens[2], "", true),
    ] {
        let [(name, value)] = bearer(token);
        // ttyd's client passes on the query of its page.
        let path = format!("{path}{query}{}fontSize=20&arg=-c", if query.is_empty() { "?" } else { "&" });
        let mut tty = Tty::open(daemon.addr(), &path, "castra.tty", &[(name, &value)]).unwrap();
        tty.join("", 90, 30);
        tty.until_shown(PROMPT);
        assert_eq!(tty.sizes[0]["writable"], writable, "{path}");
        tty.type_keys("typed");
        if writable {
            tty.until_shown("typed");
        } else {
            // In order: had the keys been taken, the next driver would see them.
            let mut other = driver(&daemon, &session);
            other.type_keys("x\u{7f}");
            other.take();
            assert!(!other.screen().contains("typed"), "{}", other.screen());
        }
    }
    let status = |headers: &[(&str, &str)]| {
        Tty::open(daemon.addr(), &path, "tty", headers).err().map(|refused| refused.0)
    };
    let [(name, value)] = bearer(&tokens[2]);
    let (own, auth) = (format!("http://{}", daemon.addr()), (name, value.as_str()));
    assert_eq!(status(&[]), Some(401));
    assert_eq!(status(&[("authorization", "Bearer nobody")]), Some(401));
    assert_eq!(status(&[auth, ("origin", &own)]), None);
    for origin in ["null", "http://evil.tld", "http://localhost:5173", "https://127.0.0.1"] {
        assert_eq!(status(&[auth, ("origin", origin)]), Some(403), "{origin}");
    }
    assert_eq!(status(&[auth, ("host", "evil.tld")]), Some(421));
    // A plain request, and a session that has no terminal.
    assert_eq!(daemon.http().get(&path).status, 426);
    let stream = daemon.session(json!({}));
    let refused = Tty::open(daemon.addr(), &stream.path("/terminal/ws"), "tty", &[auth]).err();
    assert_eq!(refused, Some(Refused(400)));
    // A token that is bound to the other session.
    let bound = daemon.token(&json!({"scope": "admin", "session_id": stream.show().id})).token;
    let [(name, value)] = bearer(&bound);
    assert_eq!(status(&[(name, &value)]), Some(404));
}

#[test]
fn a_browser_is_signed_in_by_a_ticket_and_lives_as_long_as_the_token_that_made_it() {
    let world = world();
    let daemon = world.daemon();
    let session = terminal(&daemon);
    let maker = daemon.token(&json!({"scope": "approve"}));
    let http = daemon.http_as(&maker.token);
    let more = http.post("/api/v1/sign-in/tickets", &json!({"scope": "admin"}));
    assert_eq!(more.problem().code, ErrorCode::Forbidden);

    let first = ticket(&http, json!({"session_id": session.show().id}));
    let browser = Browser::sign_in(&daemon, &first.ticket);
    let again = browser.http.post_with("/api/v1/sign-in", &[], &json!({"ticket": first.ticket}));
    assert_eq!(again.problem().code, ErrorCode::Unauthorized, "good once");
    assert_eq!(browser.status(&session.path("")), 200);
    assert_eq!(browser.status("/api/v1/tokens"), 403, "only what its maker may");
    let listed: Value = daemon.http().get("/api/v1/tokens").json();
    let named = format!("browser of {}", maker.info.id);
    assert!(listed["items"].as_array().unwrap().iter().any(|token| token["name"] == named.as_str()));

    // So many at once, the oldest goes.
    let oldest = Browser::sign_in(&daemon, &ticket(&http, json!({})).ticket);
    let others: Vec<_> =
        (0..31).map(|_| Browser::sign_in(&daemon, &ticket(&http, json!({})).ticket)).collect();
    assert_eq!(browser.status(&session.path("")), 401, "it was the first of 33");
    assert_eq!((oldest.status(&session.path("")), others[30].status(&session.path(""))), (200, 200));
    let browser = oldest;

    // Without a ticket a cookie opens nothing; with one it does, once.
    assert_eq!(browser.open(&daemon, &session).err(), Some(Refused(401)));
    let seat = browser.terminal_token(&session);
    let mut tty = browser.open(&daemon, &session).unwrap();
    tty.join(&seat, 100, 30);
    tty.until_shown(PROMPT);
    let own = json!({"columns": 100, "rows": 30, "writable": true});
    tty.until("its own size", |tty| tty.sizes.last() == Some(&own));
    let spare = browser.terminal_token(&session);
    let mut twice = browser.open(&daemon, &session).unwrap();
    twice.join(&seat, 100, 30);
    assert_eq!((twice.until_closed(), twice.output), (1008, 0));
    let mut empty = browser.open(&daemon, &session).unwrap();
    empty.join("", 100, 30);
    assert_eq!((empty.until_closed(), empty.output), (1008, 0));
    // Nor is it anybody else's.
    let mut other = open(&daemon, &session, &maker.token, "tty");
    other.join(&spare, 100, 30);
    assert_eq!((other.until_closed(), other.output), (1008, 0));

    // An agent's server on another port is sent the cookie as well: it gets nothing by it.
    let stolen = [("cookie", browser.cookie.as_str()), ("origin", browser.origin.as_str())];
    assert_eq!(browser.http.status_of(Method::GET, &session.path("/terminal/token"), &stolen), 401);

    let path = format!("/api/v1/tokens/{}", maker.info.id);
    assert_eq!(daemon.http().delete(&path).status, 204);
    assert_eq!(tty.until_closed(), 1008);
    assert_eq!(browser.status(&session.path("")), 401);
    session.wait_idle();
}

#[test]
fn a_ticket_is_for_one_session() {
    let world = world();
    let daemon = world.daemon();
    let (one, two) = (terminal(&daemon), daemon.session(json!({"mode": "terminal", "name": "other"})));
    two.wait_idle();
    let browser = Browser::sign_in(&daemon, &ticket(&daemon.http(), json!({})).ticket);
    let of_one = browser.terminal_token(&one);
    let mut tty = browser.open(&daemon, &two).unwrap();
    tty.join(&of_one, 100, 30);
    assert_eq!((tty.until_closed(), tty.output), (1008, 0));

    // A browser that is bound to one sees one.
    let bound = ticket(&daemon.http(), json!({"session_id": one.show().id}));
    let bound = Browser::sign_in(&daemon, &bound.ticket);
    assert_eq!(bound.status(&one.path("")), 200);
    assert_eq!(bound.status(&two.path("/terminal/token")), 404);
    // And its ticket can be for nothing more.
    let own = daemon.token(&json!({"scope": "drive", "session_id": one.show().id}));
    let http = daemon.http_as(&own.token);
    assert_eq!(ticket(&http, json!({})).session_id, Some(one.show().id));
    let foreign = http.post("/api/v1/sign-in/tickets", &json!({"session_id": two.show().id}));
    assert_eq!(foreign.problem().code, ErrorCode::SessionNotFound);
}

#[test]
fn a_session_that_ends_says_so_and_can_be_joined_again() {
    let world = world();
    let daemon = world.daemon();
    let session = terminal(&daemon);
    let mut tty = driver(&daemon, &session);
    tty.enter("remember the plums");
    tty.until_shown("You said: remember the plums");
    after_turns(&session, 1);
    session.act("stop");
    assert_eq!(tty.until_closed(), 1000);
    session.wait_state(RunState::Ended);
    // The last screen stays to be looked at.
    let admin = daemon.token(&json!({"scope": "approve"})).token;
    let mut late = open(&daemon, &session, &admin, "tty");
    late.join("", 100, 30);
    assert_eq!(late.until_closed(), 1000);
    assert!(late.output > 0);
    session.act("resume");
    session.wait_idle();
    let mut again = driver(&daemon, &session);
    again.until_shown("remember the plums");
    again.enter("and more");
    again.until_shown("You said: and more");
}

#[test]
fn a_daemon_that_is_killed_is_found_again_with_the_same_screen_and_the_same_sign_in() {
    let world = world();
    let mut daemon = world.daemon();
    let session = terminal(&daemon);
    let browser = Browser::sign_in(&daemon, &ticket(&daemon.http(), json!({})).ticket);
    let join = |daemon: &Daemon<'_>| {
        let seat = browser.terminal_token(&session);
        let mut tty = browser.open(daemon, &session).unwrap();
        tty.join(&seat, 100, 30);
        tty
    };
    let mut tty = join(&daemon);
    tty.until_shown(PROMPT);
    tty.enter("tell me slowly");
    tty.until_shown("It goes one");
    daemon.kill9();
    assert_eq!(tty.until_closed(), 0, "it did not say goodbye");
    daemon.start_again();
    let mut again = join(&daemon);
    again.until_shown("ten 10 and that");
    assert_eq!(after_turns(&session, 1).run, 1);
    again.until("its own size", |tty| {
        tty.sizes.last() == Some(&json!({"columns": 100, "rows": 30, "writable": true}))
    });
    again.enter("still here");
    again.until_shown("You said: still here");
}

#[test]
fn who_comes_before_the_daemon_has_read_the_log_again_sees_the_screen_of_an_idle_claude() {
    let world = world();
    let mut daemon = world.daemon();
    let session = terminal(&daemon);
    let approve = daemon.token(&json!({"scope": "approve"})).token;
    let mut tty = driver(&daemon, &session);
    tty.enter("plums are purple");
    tty.until_shown("You said: plums are purple");
    after_turns(&session, 1);
    let before = wait_for(
        "a screen that stands still",
        || {
            tty.take();
            let before = tty.screen();
            std::thread::sleep(Duration::from_millis(500));
            tty.take();
            (tty.screen() == before).then_some(before)
        },
        DEADLINE,
    );
    for round in 0..3 {
        daemon.kill9();
        daemon.start_again();
        let mut early = open(&daemon, &session, &approve, "tty");
        early.join("", 100, 30);
        early.until(&format!("the same screen, round {round}"), |tty| tty.screen() == before);
    }
}

#[test]
fn a_viewer_that_stalls_or_sends_too_much_is_its_own_trouble() {
    let world = world();
    let daemon = world.daemon();
    let session = terminal(&daemon);
    let mut stalled = driver(&daemon, &session);
    let mut other = driver(&daemon, &session);
    // `stalled` takes nothing from here on.
    for round in 0..3 {
        other.enter(&format!("round {round}"));
        other.until_shown(&format!("You said: round {round}"));
        session.wait_idle();
    }
    stalled.until_shown("You said: round 2");
    // Paused by its own wish, and back.
    stalled.say("2");
    other.enter("while paused");
    other.until_shown("You said: while paused");
    stalled.take();
    assert!(!stalled.screen().contains("You said: while paused"), "{}", stalled.screen());
    stalled.say("3");
    stalled.until_shown("You said: while paused");
    // More than a message may have.
    stalled.try_say(&format!("0{}", "x".repeat((1 << 20) + 1)));
    assert_ne!(stalled.until_closed(), 1000);
    wait_until("the other to go on", || other.take(), DEADLINE);
    session.wait_idle();
}

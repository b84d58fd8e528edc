//! The built-in page in Chromium, with the real CLI: signed in by a link, typed into, back by itself after a crash,
//! good on a phone; nothing for who is on another page. And ttyd's own page in its place.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "terminal_page/mod.rs"]
mod chromium;
mod terminal;

use castra_proto::api::ScreenSize;
use castra_testkit::{DEADLINE, Daemon, Session, World, clis, wait_until};
use chromium::{Browser, Proxy};
use serde_json::json;
use terminal::{CASTRA, screen};

const SCRIPT: &str = r#"
[[rule]]
name = "echo"
reply.text = "You said: {{last_user}}"
"#;

fn world() -> World {
    World::new(CASTRA, &clis()[0].path, SCRIPT)
}

fn terminal(daemon: &Daemon<'_>) -> Session {
    let session = daemon.session(json!({"mode": "terminal", "name": "tui"}));
    session.wait_idle();
    session
}

fn link(world: &World, flags: &[&str]) -> String {
    let args = ["open", "tui"].iter().chain(flags);
    world.cli(args).ok().trim().to_owned()
}

#[test]
fn a_link_signs_in_and_the_page_comes_back_after_a_crash() {
    let world = world();
    let mut daemon = world.daemon();
    let session = terminal(&daemon);
    let mut browser = Browser::desktop();
    let link = link(&world, &[]);
    assert!(link.contains("/terminal/#ticket="), "{link}");
    browser.go(&link);
    browser.until_shown("Claude Code");
    assert_eq!(browser.run("return page.url()"), link.split('#').next().unwrap(), "the ticket is gone");
    browser.type_line("plums are purple");
    browser.until_shown("You said: plums are purple");
    let title = browser.run("return page.title()");
    assert!(title.as_str().unwrap().ends_with("| tui"), "{title}");
    browser.shot("desktop");
    // The size of the session is this window's.
    let drawn = browser.run("return page.locator('.xterm-rows > div').count()");
    assert!(drawn.as_u64().is_some_and(|rows| (20..50).contains(&rows)), "{drawn}");

    daemon.kill9();
    browser.until_state("away");
    browser.shot("away");
    daemon.start_again();
    browser.until_state("open");
    browser.until_shown("You said: plums are purple");
    browser.type_line("and grapes green");
    browser.until_shown("You said: and grapes green");
    // Signed in for good: another load needs no ticket, another tab neither.
    browser.run("await page.reload()");
    browser.until_shown("You said: and grapes green");

    session.wait_idle();
    session.act("stop");
    browser.until_state("over");
    browser.shot("over");
    session.act("resume");
    browser.until_state("open");
    browser.has_no_faults();
}

#[test]
fn a_phone_types_with_the_row_of_keys() {
    let world = world();
    let daemon = world.daemon();
    let session = terminal(&daemon);
    let mut phone = Browser::start(
        json!({"viewport": {"width": 390, "height": 700}, "isMobile": true, "hasTouch": true}),
    );
    phone.go(&link(&world, &[]));
    phone.until_shown("Claude Code");
    let tap =
        |name: &str| format!("await page.getByRole('button', {{name: {}, exact: true}}).tap()", json!(name));
    phone.run("await page.locator('#terminal').tap(); await page.keyboard.type('hello from a phone')");
    phone.until_shown("hello from a phone");
    phone.shot("phone");
    phone.run(&tap("Enter"));
    phone.until_shown("You said: hello from a");
    wait_until("the turn's end", || session.show().turns == 1, DEADLINE);
    phone.run(&tap("Up"));
    phone.until_shown("hello from a phone");
    // All of it fits beside each other.
    let fits = "const w = document.getElementById('window'); return [w.scrollWidth - w.clientWidth, \
        document.documentElement.scrollWidth - innerWidth]";
    let over = phone.run(&format!("return page.evaluate(() => {{ {fits} }})"));
    assert_eq!(over, json!([0, 0]));
    phone.has_no_faults();
}

#[test]
fn who_only_looks_sees_all_of_a_larger_screen_and_types_nothing() {
    let world = world();
    let daemon = world.daemon();
    let session = terminal(&daemon);
    let mut driver = Browser::desktop();
    driver.go(&link(&world, &[]));
    driver.until_shown("Claude Code");
    let mut reader = Browser::start(json!({"viewport": {"width": 700, "height": 400}}));
    reader.go(&link(&world, &["--read-only"]));
    reader.until_shown("Claude Code");
    reader.run("await page.locator('#badge').waitFor()");
    reader.run("await page.keyboard.type('not typed')");
    driver.run("await page.keyboard.type('typed by the driver')");
    driver.until_shown("typed by the driver");
    reader.until_shown("typed by the driver");
    let rows = |browser: &mut Browser| browser.run("return page.locator('.xterm-rows > div').count()");
    assert_eq!(rows(&mut reader), rows(&mut driver), "one size for all");
    let both = [driver.run("return screen()"), reader.run("return screen()")];
    assert!(both.iter().all(|screen| !screen.as_str().unwrap().contains("not typed")), "{both:?}");
    let wide = "document.querySelector('.xterm-screen').clientWidth <= document.getElementById('window').clientWidth";
    assert_eq!(reader.run(&format!("return page.evaluate(() => {wide})")), true, "in smaller letters");
    reader.shot("reader");
    session.wait_idle();
    reader.has_no_faults();
}

#[test]
fn a_page_elsewhere_gets_nothing_and_who_is_not_signed_in_is_told_how() {
    let world = world();
    let daemon = world.daemon();
    let session = terminal(&daemon);
    let mut browser = Browser::desktop();
    let link = link(&world, &[]);
    let page = link.split('#').next().unwrap();
    browser.go(page);
    browser.until_state("refused");
    let notice = browser.run("return page.locator('#notice').innerText()");
    assert!(notice.as_str().unwrap().contains("castra open ID"), "{notice}");
    browser.shot("refused");
    browser.go(&link);
    // Only the fragment is another: the page is not loaded anew, so that is done here.
    browser.run("await page.reload()");
    browser.until_shown("Claude Code");

    // An agent's web server, on another port of the same address: the cookie goes along, and opens nothing.
    let base = page.trim_end_matches('/').replace("http://", "");
    let body = format!(
        "const elsewhere = 'http://127.0.0.1:9/';
         await page.route(elsewhere, route => route.fulfill({{contentType: 'text/html', body: '<p>hello'}}));
         await page.goto(elsewhere);
         return page.evaluate(async (base) => {{
             const socket = new Promise(done => {{
                 const ws = new WebSocket('ws://' + base + '/ws', ['tty']);
                 ws.onopen = () => done('open');
                 ws.onerror = () => done('refused');
             }});
             const read = await fetch('http://' + base + '/token', {{credentials: 'include'}}).then(() => 'read', () => 'refused');
             return [await socket, read];
         }}, {})",
        json!(base)
    );
    assert_eq!(browser.run(&body), json!(["refused", "refused"]));
    session.wait_idle();
}

#[test]
fn what_an_agent_writes_opens_no_page_unasked_and_pasted_lines_are_guarded() {
    let world = world();
    let daemon = world.daemon();
    terminal(&daemon);
    let mut browser = Browser::desktop();
    browser.go(&link(&world, &[]));
    browser.until_shown("Claude Code");
    // From here on the test is the server: what the terminal writes and is sent is its choice.
    browser.run(
        "const typed = (seen.typed = []);
         await page.routeWebSocket(/terminal\\/ws/, (ws) => {
             seen.send = (text) => ws.send(Buffer.from(text));
             ws.onMessage((message) => typed.push(message.toString()));
             ws.send(Buffer.from('1mock'));
             ws.send(Buffer.from('3{\"columns\":80,\"rows\":24,\"writable\":true}'));
             const link = (uri, text) => `\\x1b]8;;${uri}\\x1b\\\\${text}\\x1b]8;;\\x1b\\\\\\r\\n`;
             ws.send(Buffer.from('0\\x1bc' + link('javascript:alert(1)', 'SCRIPT') + link('https://example.invalid/x', 'OUTSIDE')
                 + '<img src=x onerror=alert(2)>\\r\\n\\x1b]52;c;aGk=\\x07\\x1b]0;<b>title</b>\\x07'));
         });
         await page.reload();
         await shows('OUTSIDE');",
    );
    for row in 0..2 {
        browser.run(&format!(
            "const box = await page.locator('.xterm-rows > div').nth({row}).boundingBox();
             await page.mouse.move(box.x + 4, box.y + 4);
             await page.mouse.move(box.x + 20, box.y + box.height / 2);
             await page.waitForTimeout(200);
             await page.mouse.click(box.x + 20, box.y + box.height / 2)"
        ));
    }
    let dialogs = browser.run("return seen.dialogs");
    assert_eq!(dialogs, json!(["Open https://example.invalid/x?"]), "shown, and refused here");
    assert_eq!(browser.run("return context.pages().length"), 1);
    assert_eq!(browser.run("return page.locator('#title').innerText()"), "<b>title</b> | mock");

    let paste = |text: &str| {
        format!(
            "await page.evaluate((text) => {{
                 const data = new DataTransfer();
                 data.setData('text/plain', text);
                 const event = new ClipboardEvent('paste', {{clipboardData: data, bubbles: true, cancelable: true}});
                 document.querySelector('.xterm-helper-textarea').dispatchEvent(event);
             }}, {}); return seen.typed.filter((m) => m[0] === '0')",
            json!(text)
        )
    };
    assert_eq!(browser.run(&paste("one\nrm -rf two")), json!([]), "several lines without bracketed paste");
    browser.run("seen.send('0\\x1b[?2004h'); await page.waitForTimeout(300)");
    browser.run(&paste("one\ntwo\u{1b}[201~three\u{3}"));
    browser.run("for (let n = 0; n < 100 && !seen.typed.some((m) => m[0] === '0'); n++) await page.waitForTimeout(50)");
    let typed = browser.run("return seen.typed.filter((m) => m[0] === '0')");
    assert_eq!(typed, json!(["0\u{1b}[200~one\rtwo[201~three\u{1b}[201~"]));
    browser.has_no_faults();
}

#[test]
fn ttyds_own_page_works_unmodified() {
    let world = world();
    let mut daemon = world.daemon();
    let session = terminal(&daemon);
    let token = daemon.token(&json!({"scope": "approve"}));
    let proxy = Proxy::start(daemon.addr(), &token.token);
    let mut browser = Browser::desktop();
    // What it has is read from its xterm.js: it draws on a canvas, and without WebGL, as here, it changes its renderer on
    // every connection, which now and then leaves its view at row NaN.
    browser.run(
        "seen.text = () => page.evaluate(() => {
             const buffer = window.term?.buffer?.active;
             if (!buffer) return '';
             const rows = Array.from({length: window.term.rows}, (_, row) => buffer.getLine(buffer.baseY + row));
             return rows.map((row) => row?.translateToString(true)).join('\\n');
         });
         seen.until = async (text) => {
             for (let n = 0; n < 1200; n++) {
                 if ((await seen.text()).includes(text)) return;
                 await page.waitForTimeout(50);
             }
             throw new Error(`${text} does not appear: ${await seen.text()}`);
         };",
    );
    browser.go(&proxy.url(&format!("{}?disableResizeOverlay=true", session.path("/terminal/"))));
    browser.run("await seen.until('Claude Code'); await page.keyboard.type('from ttyd')");
    browser.run("await seen.until('from ttyd'); await page.keyboard.press('Enter')");
    browser.run("await seen.until('You said: from ttyd')");
    let title = browser.run("return page.title()");
    assert!(title.as_str().unwrap().ends_with(" | tui"), "{title}");
    browser.shot("ttyd");
    // Its window decides, as it is the only one.
    let size = |browser: &mut Browser| {
        browser.run("return page.evaluate(() => [window.term.cols, window.term.rows])")
    };
    let before = size(&mut browser);
    browser.run("await page.setViewportSize({width: 700, height: 400})");
    wait_until("the smaller window", || size(&mut browser) != before, DEADLINE);
    let told = || screen(&session).size;
    let [cols, rows] = [0, 1].map(|at| size(&mut browser)[at].as_u64().unwrap() as u16);
    wait_until("the session to have its size", || told() == ScreenSize { rows, cols }, DEADLINE);
    wait_until("the turn's end", || session.show().turns == 1, DEADLINE);
    // More than it draws at once: it asks to wait and to go on.
    browser.run(
        "await page.keyboard.type('again'); await seen.until('again'); await page.keyboard.press('Enter')",
    );
    browser.run("await seen.until('You said: again')");

    daemon.kill9();
    browser.run("await page.getByText(/Reconnect/).waitFor()");
    daemon.start_again();
    // It gives up when nobody answers at once, and comes back on Enter; or had not given up yet.
    browser.run(
        "for (let n = 0; n < 60 && await page.getByText(/Press/).count(); n++) {
             await page.keyboard.press('Enter');
             await page.waitForTimeout(500);
         }",
    );
    browser.run("await seen.until('You said: again')");
    wait_until("both turns", || session.show().turns == 2, DEADLINE);
    // And is told when the session is over.
    session.act("stop");
    browser.run("await page.getByText(/Press/).waitFor()");
}

//! Chromium for tests, and a proxy that serves ttyd's page.
#![allow(dead_code, reason = "each test program uses a part")]

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// One Chromium with one page.
pub(crate) struct Browser {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
    _home: tempfile::TempDir,
}

impl Browser {
    pub(crate) fn start(view: Value) -> Self {
        let home = tempfile::tempdir().unwrap();
        let playwright = std::env::var_os("CASTRA_TEST_PLAYWRIGHT").map(PathBuf::from).expect(
            "CASTRA_TEST_PLAYWRIGHT is not set: these tests need Chromium. Run `./test`, which fetches it",
        );
        let mut child = node("drive.mjs")
            .env("HOME", home.path())
            .env("PLAYWRIGHT", playwright)
            .env("CHROMIUM", chromium())
            .env("VIEW", view.to_string())
            .spawn()
            .unwrap();
        let (to, from) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, to, from, _home: home }
    }

    pub(crate) fn desktop() -> Self {
        Self::start(json!({"viewport": {"width": 1000, "height": 640}}))
    }

    /// Runs a function body (drive.mjs has its names) and returns its value.
    #[track_caller]
    pub(crate) fn run(&mut self, body: &str) -> Value {
        let to = self.to.as_mut().unwrap();
        writeln!(to, "{}", json!(body)).unwrap();
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        let mut answer: Value =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        assert!(answer["error"].is_null(), "{body}\n{}", answer["error"].as_str().unwrap());
        answer["value"].take()
    }

    #[track_caller]
    pub(crate) fn go(&mut self, url: &str) {
        self.run(&format!("await page.goto({})", json!(url)));
    }

    #[track_caller]
    pub(crate) fn until_shown(&mut self, text: &str) {
        self.run(&format!("await shows({})", json!(text)));
    }

    #[track_caller]
    pub(crate) fn until_state(&mut self, state: &str) {
        self.run(&format!("await state({})", json!(state)));
    }

    #[track_caller]
    pub(crate) fn type_line(&mut self, text: &str) {
        self.run(&format!("await page.keyboard.type({})", json!(text)));
        self.until_shown(text);
        self.run("await page.keyboard.press('Enter')");
    }

    pub(crate) fn set_window(&mut self, width: u32, height: u32) {
        self.run(&format!("await page.setViewportSize({{width: {width}, height: {height}}})"));
    }

    /// The rows as they are drawn, without blanks at their ends.
    pub(crate) fn rows(&mut self) -> Vec<String> {
        let rows = self.run("return page.locator('.xterm-rows > div').allTextContents()");
        rows.as_array().unwrap().iter().map(|row| row.as_str().unwrap().trim_end().to_owned()).collect()
    }

    /// Columns and rows that the page said last.
    pub(crate) fn told_window(&mut self) -> (u16, u16) {
        let window = self.run("return seen.window");
        let number = |name: &str| u16::try_from(window[name].as_u64().unwrap()).unwrap();
        (number("columns"), number("rows"))
    }

    /// For those who want to look: CASTRA_TEST_SHOTS names a folder.
    pub(crate) fn shot(&mut self, name: &str) {
        if let Some(folder) = std::env::var_os("CASTRA_TEST_SHOTS") {
            let path = Path::new(&folder).join(format!("{name}.png"));
            self.run(&format!("await page.screenshot({{path: {}}})", json!(path)));
        }
    }

    /// Nothing that the page did went wrong, the content policy's refusals included.
    #[track_caller]
    pub(crate) fn has_no_faults(&mut self) {
        assert_eq!(self.run("return seen.faults"), json!([]));
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its end: it closes the browser.
        self.to = None;
        let _ = self.child.wait();
    }
}

fn chromium() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&path)
        .map(|folder| folder.join("chromium"))
        .find(|path| path.is_file())
        .expect("no chromium in PATH: run `./test` as root, or install it")
}

/// ttyd's page in front of a daemon (proxy.mjs).
pub(crate) struct Proxy {
    child: Child,
    to: Option<ChildStdin>,
    port: u16,
}

impl Proxy {
    pub(crate) fn start(daemon: SocketAddr, token: &str) -> Self {
        let page = std::env::var_os("CASTRA_TEST_TTYD")
            .expect("CASTRA_TEST_TTYD is not set: it names ttyd's page. Run `./test`, which fetches it");
        let mut child = node("proxy.mjs")
            .env("PAGE", page)
            .env("DAEMON", daemon.to_string())
            .env("TOKEN", token)
            .spawn()
            .unwrap();
        let to = child.stdin.take();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, to, port: line.trim().parse().unwrap() }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.to = None;
        let _ = self.child.wait();
    }
}

/// One of the scripts beside this file, in an environment of its own.
fn node(script: &str) -> Command {
    let mut command = Command::new("node");
    command
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/terminal_page").join(script))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    command
}

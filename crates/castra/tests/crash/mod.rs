//! What the crash tests share: a session that is driven to its end whatever dies under it, and the evidence.
#![allow(dead_code, reason = "each test program uses a part")]
#![allow(clippy::print_stdout)]

use castra_proto::api::{Message, MessageAccepted, MessageState, Page};
use castra_proto::permission::PermissionRequest;
use castra_proto::session::{Exit, ExitCause, Reaped, SandboxKind};
use castra_proto::{Event, RunState, Session as Shown};
use castra_testkit::proc::{self, Process};
use castra_testkit::{Cli, DEADLINE, Daemon, Events, Projected, Reply, Session, World, normalise};
use hyper::Method;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Instant;

pub(crate) const CASTRA: &str = env!("CARGO_BIN_EXE_castra");
/// What a child says that was killed by SIGKILL.
pub(crate) const KILLED: i32 = -9;

/// A client that does not give up: whenever the daemon is found dead it starts another one and asks again,
/// with the same key.
pub(crate) struct Driver<'w> {
    pub(crate) world: &'w World,
    pub(crate) daemon: Daemon<'w>,
    pub(crate) deaths: usize,
    pub(crate) id: String,
    pub(crate) live: Option<Events>,
}

impl<'w> Driver<'w> {
    pub(crate) fn new(world: &'w World) -> Self {
        Self { world, daemon: world.daemon(), deaths: 0, id: String::new(), live: None }
    }

    /// From here on the daemon is one that dies at that place.
    pub(crate) fn doom(&mut self, failpoint: &str) {
        self.daemon.kill9();
        self.daemon.start_doomed(failpoint);
    }

    /// Starts another daemon if there is none. A death by anything but SIGKILL is a bug.
    pub(crate) fn revive(&mut self) -> bool {
        if !self.daemon.is_over() {
            return false;
        }
        assert_eq!(self.daemon.wait_over(), KILLED, "the daemon ended by itself");
        self.deaths += 1;
        self.daemon.start_again();
        true
    }

    /// An answer of a living daemon.
    #[track_caller]
    pub(crate) fn insist(&mut self, method: &Method, path: &str, key: &str, body: &Value) -> Reply {
        let deadline = Instant::now() + DEADLINE;
        let bytes = if body.is_null() { String::new() } else { body.to_string() };
        let headers: &[(&str, &str)] = if key.is_empty() { &[] } else { &[("idempotency-key", key)] };
        loop {
            match self.daemon.http().try_call(method.clone(), path, headers, bytes.clone().into()) {
                Ok(reply) => return reply,
                // It hung up: it is dying, if it is not dead yet.
                Err(error) => assert!(Instant::now() < deadline, "{method} {path}: {error}"),
            }
            self.revive();
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    pub(crate) fn path(&self, below: &str) -> String {
        format!("/api/v1/sessions/{}{below}", self.id)
    }

    #[track_caller]
    pub(crate) fn get<T: serde::de::DeserializeOwned>(&mut self, below: &str) -> T {
        let path = self.path(below);
        self.insist(&Method::GET, &path, "", &Value::Null).expect(200)
    }

    /// Looks again and again, and sees to it that there is a daemon.
    #[track_caller]
    pub(crate) fn until<T>(&mut self, what: &str, mut look: impl FnMut(&mut Self) -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            self.revive();
            if let Some(found) = look(self) {
                return found;
            }
            assert!(Instant::now() < deadline, "waited {DEADLINE:?} in vain for {what}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// Creates the session, once, and subscribes to it.
    #[track_caller]
    pub(crate) fn create(&mut self, fields: Value) {
        let spec = self.world.spec(fields);
        let shown: Shown = self.insist(&Method::POST, "/api/v1/sessions", "the session", &spec).expect(201);
        self.id = shown.id.to_string();
        self.live = Some(self.session().follow(0));
    }

    pub(crate) fn session(&self) -> Session {
        Session::of(self.daemon.http(), self.id.clone())
    }

    /// Accepts a message once: its text is its key.
    #[track_caller]
    pub(crate) fn send(&mut self, text: &str) -> MessageAccepted {
        let path = self.path("/messages");
        self.insist(&Method::POST, &path, text, &json!({ "text": text })).expect(202)
    }

    #[track_caller]
    pub(crate) fn message(&mut self, message: &MessageAccepted) -> Message {
        self.get(&format!("/messages/{}", message.message_id))
    }

    /// What became of a message, when that is settled.
    #[track_caller]
    pub(crate) fn settled(&mut self, message: &MessageAccepted) -> Message {
        self.until("the message to be answered", |this| {
            let now = this.message(message);
            let over = matches!(now.state, MessageState::Answered | MessageState::Interrupted);
            over.then_some(now)
        })
    }

    #[track_caller]
    pub(crate) fn wait_state(&mut self, state: RunState) -> Shown {
        self.until(&format!("the session to be {state}"), |this| {
            Some(this.get::<Shown>("")).filter(|shown| shown.state == state)
        })
    }

    #[track_caller]
    pub(crate) fn permission(&mut self) -> PermissionRequest {
        self.until("a permission request", |this| {
            this.get::<Page<PermissionRequest>>("/permissions").items.into_iter().next()
        })
    }

    /// Allows it. Whoever asks again after a crash may find it decided.
    #[track_caller]
    pub(crate) fn allow(&mut self, request: &PermissionRequest) {
        let path = self.path(&format!("/permissions/{}", request.request_id));
        let before = self.deaths;
        let reply = self.insist(&Method::POST, &path, "", &json!({"behavior": "allow"}));
        let decided = reply.status == 200 || (reply.status == 409 && self.deaths > before);
        assert!(decided, "{} {}", reply.status, reply.text());
    }

    #[track_caller]
    pub(crate) fn stop(&mut self) -> Shown {
        let path = self.path("/stop");
        self.insist(&Method::POST, &path, "", &Value::Null).expect(200)
    }

    #[track_caller]
    pub(crate) fn resume(&mut self) {
        let path = self.path("/resume");
        let _: Shown = self.insist(&Method::POST, &path, "", &Value::Null).expect(200);
    }

    /// Says it and returns the text of the answer.
    #[track_caller]
    pub(crate) fn ask(&mut self, text: &str) -> String {
        let message = self.send(text);
        let message = self.settled(&message);
        assert_eq!(message.state, MessageState::Answered, "{text}: {message:?}");
        message.result.unwrap_or_else(|| panic!("{text}: answered without a result")).text
    }

    /// Whether text is being written, or was.
    pub(crate) fn is_writing(&self) -> bool {
        self.live.as_ref().is_some_and(|live| {
            let seen = live.seen();
            !seen.partials.is_empty() || seen.events.iter().any(|event| event.kind.as_str() == "assistant")
        })
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.world.home().join("sessions").join(&self.id).join("work")
    }

    /// What tools have appended to a file in the workspace.
    pub(crate) fn written(&self, name: &str) -> String {
        std::fs::read_to_string(self.work().join(name)).unwrap_or_default()
    }

    /// The subscriber's pieces, once it has everything that is stored; both must be the same bytes.
    #[track_caller]
    pub(crate) fn pieced_together(&mut self) -> Vec<Event> {
        let session = self.session();
        let head = session.show().head_seq;
        self.until("the subscriber to have all", |this| {
            let live = this.live.as_ref().expect("a subscription").seen();
            live.events.last().is_some_and(|event| event.seq >= head).then_some(())
        });
        let seen = self.live.as_ref().expect("a subscription").events();
        let stored = session.events();
        let text = |events: &[Event]| -> Vec<String> {
            events.iter().map(|event| serde_json::to_string(event).expect("an event")).collect()
        };
        assert_eq!(text(&seen), text(&stored[..seen.len()]), "the subscriber's pieces are not the store");
        let numbers: Vec<u64> = seen.iter().map(|event| event.seq).collect();
        assert_eq!(numbers, (1..=seen.len() as u64).collect::<Vec<_>>(), "a gap or a double");
        seen
    }

    /// Processes of this world that are neither daemon nor test.
    pub(crate) fn processes(&self) -> Vec<Process> {
        let daemon = self.daemon.pid();
        self.world.processes().into_iter().filter(|one| one.pid != daemon).collect()
    }

    /// Nothing of any run is left.
    #[track_caller]
    pub(crate) fn wait_nobody(&mut self) {
        self.until("nobody to be left", |this| this.processes().is_empty().then_some(()));
    }

    pub(crate) fn times_in_transcript(&self, message: &MessageAccepted) -> usize {
        times_in_transcript(self.world, &self.id, message)
    }

    pub(crate) fn meta(&self, run: u32) -> Meta {
        Meta::read(self.world, &self.id, run)
    }
}

/// How often the conversation on disk holds this message, as a prompt or as what joined a turn.
pub(crate) fn times_in_transcript(world: &World, session: &str, message: &MessageAccepted) -> usize {
    let id = message.message_id.to_string();
    let holds = |record: &Value| match record["type"].as_str() {
        Some("user") => record["uuid"] == id.as_str(),
        Some("attachment") => record["attachment"]["source_uuid"] == id.as_str(),
        _ => false,
    };
    transcript(world, session).iter().filter(|record| holds(record)).count()
}

/// Whether a turn of a one-line answer is on disk: claude writes it down behind the result.
pub(crate) fn is_on_disk(world: &World, session: &str, answer: &str) -> bool {
    let says =
        |record: &Value| record["type"] == "assistant" && record["message"]["content"][0]["text"] == answer;
    transcript(world, session).iter().any(says)
}

/// The records of every transcript of a session.
fn transcript(world: &World, session: &str) -> Vec<Value> {
    let projects = world.home().join("sessions").join(session).join("home/.claude/projects");
    let folders = std::fs::read_dir(projects).into_iter().flatten().map(|entry| entry.unwrap().path());
    let files = folders.flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten());
    let files = files.map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    let text: String = files.map(|path| std::fs::read_to_string(path).unwrap()).collect();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// What came out of a story that was told to its end.
#[derive(Debug, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) accepted: Vec<Projected>,
    pub(crate) said: Vec<Projected>,
    /// What the model heard.
    pub(crate) heard: Vec<Option<String>>,
    pub(crate) tool_log: String,
    pub(crate) answers: Vec<(MessageState, Option<String>)>,
    pub(crate) sandbox: SandboxKind,
    pub(crate) shown: (RunState, u32, u32, u32),
}

impl Outcome {
    /// Ends the story: all that was sent is settled, claude is the one that it was, and is stopped; nobody is left.
    #[track_caller]
    pub(crate) fn of(driver: &mut Driver<'_>, sent: &[MessageAccepted], claude: Option<i32>) -> Self {
        assert!(claude.is_some());
        let settled: Vec<Message> = sent.iter().map(|message| driver.settled(message)).collect();
        let result = |message: Message| (message.state, message.result.map(|result| result.text));
        let shown = driver.wait_state(RunState::Idle);
        assert_eq!(shown.pid, claude, "claude is the same process");
        driver.stop();
        let shown = driver.wait_state(RunState::Ended);
        let exit = shown.exit.clone().expect("an exit");
        assert_eq!((exit.cause, exit.reaped), (ExitCause::Stopped, Reaped::Proved));
        driver.wait_nobody();
        let (accepted, said) = lanes(&driver.pieced_together());
        Self {
            accepted,
            said,
            heard: driver.world.calls().iter().map(|call| call.last_user.clone()).collect(),
            tool_log: driver.written("tool.log"),
            answers: settled.into_iter().map(result).collect(),
            sandbox: shown.sandbox.kind,
            shown: (shown.state, shown.run, shown.turns, shown.queued),
        }
    }
}

/// A conversation that is told once in peace, and again with a daemon that dies.
#[derive(Clone, Copy)]
pub(crate) struct Story {
    pub(crate) script: &'static str,
    pub(crate) tell: fn(&mut Driver<'_>) -> Outcome,
}

impl Story {
    pub(crate) fn undisturbed(&self, cli: &Cli) -> Outcome {
        let world = World::new(CASTRA, &cli.path, self.script);
        let mut driver = Driver::new(&world);
        let outcome = (self.tell)(&mut driver);
        assert_eq!((driver.deaths, outcome.tool_log.as_str()), (0, "one\n"), "{cli}");
        let is_whole = |(state, text): &(_, Option<_>)| *state == MessageState::Answered && text.is_some();
        assert!(outcome.answers.iter().all(is_whole), "{cli}: {:?}", outcome.answers);
        outcome
    }

    fn dying(&self, cli: &Cli, place: &str) -> Outcome {
        let world = World::new(CASTRA, &cli.path, self.script);
        let mut driver = Driver::new(&world);
        driver.doom(place);
        let outcome = (self.tell)(&mut driver);
        assert_eq!(driver.deaths, 1, "{cli}, {place}: never reached");
        outcome
    }

    /// Tells it once in peace, and once for each place at which the daemon dies; all at the same time, since a story is
    /// mostly waiting.
    pub(crate) fn dies_at(&self, clis: &[Cli], places: &[&str]) {
        for cli in clis {
            std::thread::scope(|scope| {
                let peace = scope.spawn(|| self.undisturbed(cli));
                let told: Vec<_> =
                    places.iter().map(|place| scope.spawn(|| self.dying(cli, place))).collect();
                let expected = peace.join().expect("the undisturbed story");
                for (place, outcome) in places.iter().zip(told) {
                    let outcome = outcome.join().unwrap_or_else(|_| panic!("{cli}, {place}"));
                    similar_asserts::assert_eq!(outcome, expected, "{cli}, {place}");
                    println!("{cli}: survived {place}");
                }
            });
        }
    }
}

/// xorshift: the seed is printed, so that a failure can be told again.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(cli: &Cli) -> Self {
        let seed = std::time::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_nanos() as u64 | 1);
        println!("{cli}: seed {seed}");
        Self(seed)
    }

    pub(crate) fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

/// Who is there of a run.
#[derive(Clone, Debug)]
pub(crate) struct Meta {
    pub(crate) run: String,
    pub(crate) guard: Process,
    pub(crate) shim: Process,
    pub(crate) claude: Process,
}

impl Meta {
    /// Guard, shim and claude of a run, as the shim wrote them down.
    #[track_caller]
    pub(crate) fn read(world: &World, session: &str, run: u32) -> Self {
        let path = world.home().join(format!("sessions/{session}/runs/{run}/meta.json"));
        let meta: Value = serde_json::from_slice(&std::fs::read(path).expect("meta.json")).expect("JSON");
        let one = |name: &str| {
            let pid = meta[name]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
            proc::process(pid.unwrap_or_else(|| panic!("no {name} in {meta}"))).expect("a living process")
        };
        Self {
            run: meta["run_id"].as_str().expect("an id").to_owned(),
            guard: one("guard"),
            shim: one("shim"),
            claude: one("claude"),
        }
    }

    /// Everything of the run that lives now: by its place in the tree, and by its environment.
    pub(crate) fn tree(&self) -> Vec<Process> {
        let mut tree = proc::descendants(self.guard.pid);
        tree.extend(proc::of_run(&self.run));
        tree.push(self.guard);
        tree.sort();
        tree.dedup();
        tree
    }
}

/// What two runs of one script have in common, in two lanes: when a message is accepted is the client's doing,
/// and where that falls between claude's own words is chance.
pub(crate) fn lanes(events: &[Event]) -> (Vec<Projected>, Vec<Projected>) {
    normalise(events).into_iter().partition(|one| one.kind == "input_accepted")
}

/// Whether an end tells of a SIGKILL: the sandbox's program passes it on as a shell does.
pub(crate) fn by_sigkill(exit: &Exit) -> bool {
    (exit.code, exit.signal) == (None, Some(9))
}

/// What castra itself said to claude.
pub(crate) fn said_by_castra(events: &[Event]) -> Vec<String> {
    let said = events.iter().filter(|event| event.kind.as_str() == "input_accepted");
    let said = said.map(|event| serde_json::from_str::<Value>(event.data.get()).expect("JSON"));
    let own = said.filter(|data| data["by"] == "castra");
    own.map(|data| data["text"].as_str().unwrap_or_default().to_owned()).collect()
}

//! The embedding API as a program uses it: the real CLI, a scripted model in this process, no daemon.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use castra_claude::message::Stdout;
use castra_model::{Model, Script};
use castra_proto::permission::PermissionAnswer;
use castra_proto::session::ExitCause;
use castra_proto::{ErrorCode, OwnKind, RunState, SessionSpec};
use castra_supervisor::config::{Config, Demo, DemoEndpoint};
use castra_supervisor::{Error, Frame, Session, Supervisor};
use futures::future::BoxFuture;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;

/// For whatever waits: far above what any machine needs.
const DEADLINE: Duration = Duration::from_secs(60);

const SCRIPT: &str = r#"
[[rule]]
name = "touch"
when.last_user.regex = '^touch (.*)'
reply.blocks = [{ tool_use = { name = "Bash", input = { command = "touch {{capture:1}}", description = "t" } } }]
[[rule]]
name = "touched"
when.tool_result = { is_error = false }
reply.text = "touched"
[[rule]]
name = "not touched"
when.tool_result = { is_error = true }
reply.text = "not touched: {{tool_result:300}}"
[[rule]]
name = "slow"
when.last_user.contains = "be slow"
reply.text = "This takes longer than anybody waits for it."
reply.stall = { after_chars = 4, forever = true }
[[rule]]
name = "refused"
when.last_user.contains = "be refused"
reply.error = { status = 400, message = "no such luck" }
[[rule]]
name = "memory"
when.last_user.contains = "what did I say"
reply.text = "{{user_texts}}"
[[rule]]
name = "echo"
reply.text = "You said: {{last_user}}"
"#;

struct Scripted(Model);

impl Demo for Scripted {
    fn endpoint(&self) -> BoxFuture<'_, castra_supervisor::Result<DemoEndpoint>> {
        let endpoint = DemoEndpoint { base_url: self.0.base_url(), api_key: "made-up".into() };
        Box::pin(std::future::ready(Ok(endpoint)))
    }
}

/// A data folder with its configuration: what a program has when it is started again.
struct Bed {
    config: Config,
    _home: tempfile::TempDir,
}

impl Bed {
    async fn new() -> Self {
        let named = std::env::var_os("CASTRA_TEST_CLAUDE").unwrap_or_default();
        let claude = std::env::split_paths(&named).find(|path| !path.as_os_str().is_empty());
        let home = tempfile::Builder::new().prefix("ce-").tempdir_in("/tmp").unwrap();
        let mut config = Config::new(home.path());
        config.claude.path =
            Some(claude.expect("CASTRA_TEST_CLAUDE is not set: run `./test`, which fetches the CLI"));
        config.inherited.insert("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into());
        let model = Model::start(Script::parse(SCRIPT).unwrap(), ([127, 0, 0, 1], 0).into()).await.unwrap();
        config.demo = Some(Arc::new(Scripted(model)));
        Self { config, _home: home }
    }

    async fn open(&self) -> Supervisor {
        Supervisor::open(self.config.clone()).await.unwrap()
    }
}

async fn start(supervisor: &Supervisor, name: &str) -> Session {
    let spec = SessionSpec { demo: true, name: Some(name.into()), ..Default::default() };
    supervisor.start(spec).await.unwrap()
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("waited too long for {what}"))
}

async fn ask(session: &Session, text: &str) -> String {
    soon(text, session.ask(text)).await.unwrap().text
}

/// Until claude has begun to speak: it says that it has a message only when it has answered.
async fn wait_for_words(supervisor: &Supervisor, session: &Session, after: u64) {
    let mut frames = supervisor.subscribe(session.id(), after).await.unwrap();
    soon("the first words", async {
        loop {
            let batch = frames.next().await.expect("the session is there").unwrap();
            if batch.iter().any(|frame| matches!(frame, Frame::Partial(_))) {
                return;
            }
        }
    })
    .await;
}

fn code(error: &Error) -> ErrorCode {
    error.problem().code
}

#[tokio::test(flavor = "multi_thread")]
async fn turns_share_a_memory_over_runs_forks_and_supervisors() {
    let bed = Bed::new().await;
    let supervisor = bed.open().await;
    let session = start(&supervisor, "long").await;
    assert_eq!(ask(&session, "one").await, "You said: one");
    assert_eq!(ask(&session, "what did I say?").await, "- one");

    let closed = soon("the end", session.close()).await.unwrap();
    assert_eq!((closed.state, closed.exit.unwrap().cause), (RunState::Ended, ExitCause::Stopped));
    assert_eq!(
        soon("nothing", session.close()).await.unwrap().state,
        RunState::Ended,
        "closed twice is closed"
    );
    let refused = session.send("too late").await.unwrap_err();
    assert_eq!(code(&refused), ErrorCode::SessionEnded, "{refused}");

    session.resume().await.unwrap();
    assert_eq!(ask(&session, "two").await, "You said: two");
    let alive = session.resume().await.unwrap_err();
    assert_eq!(code(&alive), ErrorCode::Conflict, "{alive}");

    // Its own memory is its own: what the child hears its parent does not.
    let child = session.fork(Some("child")).await.unwrap();
    assert_eq!(ask(&child, "only the child").await, "You said: only the child");
    let of_child = ask(&child, "what did I say?").await;
    assert_eq!(of_child, "- one\n- what did I say?\n- two\n- only the child");
    assert_eq!(ask(&session, "what did I say?").await, "- one\n- what did I say?\n- two");
    soon("the child's end", child.close()).await.unwrap();

    // A handle is no lifetime: the same claude is found by whoever opens the folder next.
    let pid = session.show().await.unwrap().pid;
    supervisor.close().await;
    drop((session, child, supervisor));
    let supervisor = bed.open().await;
    let session = supervisor.session("long").await.unwrap();
    assert_eq!(ask(&session, "three").await, "You said: three");
    assert_eq!(session.show().await.unwrap().pid, pid, "claude went on");
    soon("the end", session.close()).await.unwrap();
    supervisor.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_failed_or_was_cut_off_is_an_error_with_its_result() {
    let bed = Bed::new().await;
    let supervisor = bed.open().await;
    let session = start(&supervisor, "sad").await;

    let refused = soon("the refusal", session.ask("be refused")).await.unwrap_err();
    assert!(refused.to_string().contains("no such luck"), "{refused}");
    let Error::Turn(result) = refused else { panic!("{refused:?}") };
    assert!(!result.ok && result.seq > 0, "{result:?}");

    let before = session.show().await.unwrap().head_seq;
    let slow = tokio::spawn({
        let session = session.clone();
        async move { session.ask("be slow").await }
    });
    wait_for_words(&supervisor, &session, before).await;
    soon("the interrupt", session.interrupt()).await.unwrap();
    let cut = soon("the cut", slow).await.unwrap().unwrap_err();
    match &cut {
        Error::Turn(result) => assert!(!result.ok, "{result:?}"),
        other => assert_eq!(code(other), ErrorCode::Conflict, "{other}"),
    }
    assert_eq!(ask(&session, "and now?").await, "You said: and now?", "the session goes on");

    let before = session.show().await.unwrap().head_seq;
    let ended = tokio::spawn({
        let session = session.clone();
        async move { session.ask("be slow again").await }
    });
    wait_for_words(&supervisor, &session, before).await;
    soon("the end", session.close()).await.unwrap();
    let error = soon("no answer", ended).await.unwrap().unwrap_err();
    match &error {
        Error::Turn(result) => assert!(!result.ok, "{result:?}"),
        other => assert_eq!(code(other), ErrorCode::CliExited, "{other}"),
    }
    supervisor.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_that_panics_denies_and_the_next_one_decides() {
    let bed = Bed::new().await;
    let supervisor = bed.open().await;
    let session = start(&supervisor, "panics").await;
    let asked = Arc::new(AtomicUsize::new(0));
    let approver = session
        .on_permission({
            let asked = asked.clone();
            move |request| {
                // The call itself, not only its future.
                assert!(asked.fetch_add(1, Ordering::SeqCst) != 0, "a panic that this test asks for");
                async move {
                    assert!(!request.input.to_string().contains("second"), "another that it asks for");
                    PermissionAnswer::allow()
                }
            }
        })
        .await
        .unwrap();
    for name in ["first", "second"] {
        let text = ask(&session, &format!("touch {name}")).await;
        assert!(text.starts_with("not touched: ") && text.contains("failed, so this is denied"), "{text}");
    }
    assert_eq!(ask(&session, "touch third").await, "touched");
    assert_eq!(asked.load(Ordering::SeqCst), 3);
    let work = std::path::PathBuf::from(session.show().await.unwrap().cwd.unwrap());
    let there = ["first", "second", "third"].map(|name| work.join(name).exists());
    assert_eq!(there, [false, false, true]);
    drop(approver);
    soon("the end", session.close()).await.unwrap();
    supervisor.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_that_sends_and_one_that_never_decides_hold_up_nobody() {
    let bed = Bed::new().await;
    let supervisor = bed.open().await;
    let session = start(&supervisor, "sends").await;
    let sent = Arc::new(Notify::new());
    let approver = session
        .on_permission({
            let (session, sent) = (session.clone(), sent.clone());
            move |request| {
                let (session, sent) = (session.clone(), sent.clone());
                async move {
                    session.send("from the callback").await.unwrap();
                    // Reading goes on meanwhile, from here too.
                    let seen = session.events(0).await.unwrap().next().await;
                    assert!(seen.unwrap().unwrap().kind.is(OwnKind::State));
                    sent.notify_one();
                    request.input.to_string().contains("allowed").then(PermissionAnswer::allow)
                }
            }
        })
        .await
        .unwrap();

    assert_eq!(ask(&session, "touch allowed").await, "touched");
    soon("the callback's message", sent.notified()).await;
    // Queued behind the turn that asked, and answered in its own.
    assert_eq!(ask(&session, "what did I say?").await, "- touch allowed\n- from the callback");

    // This one is left to somebody else, who decides while the approver lives.
    let open = tokio::spawn({
        let session = session.clone();
        async move { session.ask("touch later").await }
    });
    soon("the callback's second message", sent.notified()).await;
    let waiting = session.permissions().await.unwrap();
    assert_eq!(waiting.len(), 1, "{waiting:?}");
    session.answer(&waiting[0].request_id, PermissionAnswer::allow()).await.unwrap();
    assert_eq!(soon("the turn", open).await.unwrap().unwrap().text, "touched");
    let again = session.answer(&waiting[0].request_id, PermissionAnswer::allow()).await.unwrap_err();
    assert_eq!(code(&again), ErrorCode::PermissionGone, "{again}");
    drop(approver);

    // A callback that waits for ever does not keep the session from ending.
    let reached = Arc::new(Notify::new());
    let approver = session
        .on_permission({
            let reached = reached.clone();
            move |_| {
                reached.notify_one();
                pending::<PermissionAnswer>()
            }
        })
        .await
        .unwrap();
    session.send("touch never").await.unwrap();
    soon("the request", reached.notified()).await;
    assert_eq!(soon("the end", session.close()).await.unwrap().state, RunState::Ended);
    drop(approver);
    supervisor.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_all_there_is_and_messages_are_claudes_among_them() {
    let bed = Bed::new().await;
    let supervisor = bed.open().await;
    let session = start(&supervisor, "reads").await;
    let mut live = session.messages(0).await.unwrap();
    session.send("hello").await.unwrap();
    let mut heard = Vec::new();
    soon("a result", async {
        while let Some(message) = live.next().await.transpose().unwrap() {
            let view = message.view().unwrap();
            assert_eq!(view.kind(), message.event.kind.as_str());
            assert!(
                message
                    .typed()
                    .is_some_and(|typed| !matches!(typed, Stdout::Plain(plain) if plain.name().is_none()))
            );
            heard.push((message.event.seq, message.line().to_owned()));
            if view.is_result() {
                assert_eq!((view.truly_succeeded(), view.result_text()), (true, Some("You said: hello")));
                break;
            }
        }
    })
    .await;
    soon("the end", session.close()).await.unwrap();

    let head = session.show().await.unwrap().head_seq;
    let mut events = session.events(0).await.unwrap();
    let mut all = Vec::new();
    for _ in 0..head {
        all.push(events.next().await.unwrap().unwrap());
    }
    assert_eq!(all.iter().map(|event| event.seq).collect::<Vec<_>>(), (1..=head).collect::<Vec<_>>());
    let last = heard.last().unwrap().0;
    let stored: Vec<(u64, String)> = all
        .iter()
        .filter(|event| event.seq <= last && OwnKind::parse(event.kind.as_str()).is_none())
        .map(|event| (event.seq, event.data.get().to_owned()))
        .collect();
    assert_eq!(heard, stored, "live and history are the same");

    // Nothing more will come: a reader that waits is let go when the supervisor closes.
    let waiting = tokio::spawn(async move { events.next().await.is_none() });
    supervisor.close().await;
    assert!(soon("the reader's end", waiting).await.unwrap());
}

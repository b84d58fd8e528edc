//! Callbacks of a program that embeds castra: the real CLI, a scripted model in this process, no daemon.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use castra_model::{Model, Script};
use castra_proto::task::{HookCall, HookExec, HookPoint, OnError, ReasonCode, TaskEventKind};
use castra_proto::{SessionSpec, TaskSpec, TaskState};
use castra_supervisor::config::{Config, Demo, DemoEndpoint};
use castra_supervisor::{Answer, HookCtx, HookResult, Hooks, Supervisor, Task};
use futures::future::BoxFuture;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// For whatever waits: far above what any machine needs.
const DEADLINE: Duration = Duration::from_secs(60);

/// The agent runs the command behind `RUN: ` in its instructions, and says back what castra tells it.
const SCRIPT: &str = r#"
[[rule]]
name = "kickoff"
when.last_user.contains = "read CLAUDE.md in this folder"
reply.blocks = [{ tool_use = { name = "Read", input = { file_path = "{{cwd}}/CLAUDE.md" } } }]
[[rule]]
name = "run"
when.tool_result = { tool = "Read", regex = 'RUN: ([^\n]*)' }
reply.blocks = [{ tool_use = { name = "Bash", input = { command = "{{capture:1}}", description = "Run" } } }]
[[rule]]
name = "told to finish"
when.last_user.contains = "finish now"
reply.blocks = [{ tool_use = { name = "Bash", input = { command = "echo 'DONE: as told' >> optio.log", description = "Finish" } } }]
[[rule]]
name = "else"
reply.text = "I see."
"#;

struct Scripted(Model);

impl Demo for Scripted {
    fn endpoint(&self) -> BoxFuture<'_, castra_supervisor::Result<DemoEndpoint>> {
        let endpoint = DemoEndpoint { base_url: self.0.base_url(), api_key: "made-up".into() };
        Box::pin(std::future::ready(Ok(endpoint)))
    }
}

async fn open(home: &std::path::Path) -> Supervisor {
    let named = std::env::var_os("CASTRA_TEST_CLAUDE").unwrap_or_default();
    let claude = std::env::split_paths(&named).find(|path| !path.as_os_str().is_empty());
    let mut config = Config::new(home);
    config.claude.path =
        Some(claude.expect("CASTRA_TEST_CLAUDE is not set: run `./test`, which fetches the CLI"));
    config.inherited.insert("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into());
    let model = Model::start(Script::parse(SCRIPT).unwrap(), ([127, 0, 0, 1], 0).into()).await.unwrap();
    config.demo = Some(Arc::new(Scripted(model)));
    Supervisor::open(config).await.unwrap()
}

fn home() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("cb-").tempdir_in("/tmp").unwrap()
}

fn spec(run: &str) -> TaskSpec {
    TaskSpec {
        instructions: Some(format!("RUN: {run}")),
        session: SessionSpec {
            demo: true,
            allowed_tools: vec!["Read".into(), "Bash".into()],
            ..SessionSpec::default()
        },
        ..TaskSpec::default()
    }
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("waited too long for {what}"))
}

async fn said(task: &Task, kind: TaskEventKind, n: usize) -> Vec<String> {
    let mut events = task.events(0);
    let mut said = Vec::new();
    soon(&format!("{n} events {kind}"), async {
        while said.len() < n {
            let event = events.next().await.expect("the task is there").unwrap();
            if event.kind == kind {
                said.push(event.message);
            }
        }
    })
    .await;
    said
}

/// What one callback does with a deliverable of this name; and what it was called for.
#[derive(Default)]
struct Program {
    seen: Mutex<Vec<String>>,
}

impl Program {
    fn see(&self, what: impl Into<String>) {
        self.seen.lock().unwrap().push(what.into());
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

impl Hooks for Program {
    fn points(&self) -> &[HookPoint] {
        &[HookPoint::Before, HookPoint::Deliverable, HookPoint::After, HookPoint::State]
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(2)
    }

    fn before(&self, ctx: HookCtx, _: HookCall) -> BoxFuture<'_, HookResult<()>> {
        Box::pin(async move {
            ctx.put("given/words.txt", "from the program".into()).await?;
            assert!(ctx.send_to_agent("x").await.is_err(), "there is nobody yet");
            assert!(ctx.put("../out.txt", "x".into()).await.is_err(), "beneath the workspace only");
            Ok(())
        })
    }

    fn on_deliverable(&self, ctx: HookCtx, call: HookCall) -> BoxFuture<'_, HookResult<Answer>> {
        Box::pin(async move {
            let offered = call.deliverable.ok_or("no file")?;
            self.see(format!("{} {:?}", offered.path, offered.text));
            match offered.path.as_str() {
                "panic" => panic!("as the test wants"),
                "never" => pending().await,
                "error" => Err("out of ink".into()),
                "revise" => Ok(Answer::Text("shorter".into())),
                _ => {
                    assert_eq!(ctx.offered().as_deref(), Some(&b"fine\n"[..]));
                    assert_eq!(ctx.get("deliverables/good").await?.as_ref(), b"fine\n");
                    let argv = ["sh", "-c", "pwd; cat given/words.txt; exit 3"].map(str::to_owned).to_vec();
                    let end = ctx.exec(HookExec { argv, ..HookExec::default() }).await?;
                    assert_eq!(end.code, Some(3));
                    assert!(end.stdout.ends_with("/work\nfrom the program"), "{end:?}");
                    // It changes the task while it runs.
                    ctx.progress(Some(70), Some("looked at")).await?;
                    ctx.send_to_agent("finish now").await?;
                    Ok(Answer::Accepted)
                }
            }
        })
    }

    fn after(&self, _: HookCtx, call: HookCall) -> BoxFuture<'_, HookResult<()>> {
        Box::pin(async move {
            self.see(format!("after {}", call.outcome.ok_or("no outcome")?.state));
            Ok(())
        })
    }

    fn on_state(&self, _: HookCtx, call: HookCall) -> BoxFuture<'_, HookResult<()>> {
        Box::pin(async move {
            let event = call.event.ok_or("no event")?;
            self.see(format!("state {}", event.data["to"].as_str().unwrap_or_default()));
            Ok(())
        })
    }
}

/// Whatever a callback does, the task goes on, and each file is answered once.
#[tokio::test(flavor = "multi_thread")]
async fn callbacks_may_do_their_worst_and_the_task_goes_on() {
    let home = home();
    let supervisor = open(home.path()).await;
    let program = Arc::new(Program::default());
    let run = "cat given/words.txt; for f in panic never error revise good; do echo fine > deliverables/$f; \
               echo DELIVERABLE: deliverables/$f >> optio.log; done";
    let (task, _registered) = supervisor.launch_with(spec(run), program.clone()).await.unwrap();
    let shown = soon("its end", task.wait()).await.unwrap();
    assert_eq!((shown.state, shown.result.as_deref()), (TaskState::Done, Some("as told")));
    assert_eq!(shown.progress.percent, Some(70));
    let told: Vec<String> = said(&task, TaskEventKind::Reply, 5)
        .await
        .iter()
        .map(|text| text.split_once("]: deliverable deliverables/").unwrap().1.chars().take(20).collect())
        .collect();
    let expected = [
        "panic: trouble on ca",
        "never: trouble on ca",
        "error: trouble on ca",
        "revise: please revis",
        "good: accepted.",
    ];
    assert_eq!(told, expected);
    let hooks = said(&task, TaskEventKind::Hook, 7).await;
    let expected = [
        "before: ok",
        "deliverable failed: the callback panicked",
        "deliverable failed: the callback did not return within 2 s",
        "deliverable failed: out of ink",
        "deliverable: shorter",
        "deliverable: ok",
        "after: ok",
    ];
    assert_eq!(hooks, expected);
    soon("the last state to be told", async {
        while !program.seen().contains(&"state done".into()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let (states, others): (Vec<_>, Vec<_>) =
        program.seen().into_iter().partition(|seen| seen.starts_with("state "));
    assert_eq!(states, ["state queued", "state starting", "state running", "state done"]);
    let fine = |name: &str| format!("{name} {:?}", Some("fine\n"));
    let mut expected = ["panic", "never", "error", "revise", "good"].map(fine).to_vec();
    expected.push("after done".into());
    assert_eq!(others, expected);
    supervisor.close().await;
}

/// Fails the task before it begins, of all tasks.
struct Strict;

impl Hooks for Strict {
    fn points(&self) -> &[HookPoint] {
        &[HookPoint::Before]
    }

    fn on_error(&self, _: HookPoint) -> OnError {
        OnError::Fail
    }

    fn before(&self, _: HookCtx, _: HookCall) -> BoxFuture<'_, HookResult<()>> {
        Box::pin(async { Err("not today".into()) })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn callbacks_of_all_tasks_are_called_for_as_long_as_they_are_registered() {
    let home = home();
    let supervisor = open(home.path()).await;
    let registered = supervisor.register_hooks(None, Arc::new(Strict));
    let task = supervisor.launch(spec("echo DONE >> optio.log")).await.unwrap();
    let shown = soon("its end", task.wait()).await.unwrap();
    let reason = shown.reason.unwrap();
    assert_eq!((shown.state, reason.code), (TaskState::Failed, ReasonCode::Hook));
    assert_eq!(reason.message, "a hook (before) failed: not today");
    drop(registered);
    task.retry().await.unwrap();
    let shown = soon("its end", task.wait()).await.unwrap();
    assert_eq!((shown.state, shown.attempt), (TaskState::Done, 2));
    supervisor.close().await;
}

/// A callback that never returns does not keep its task from being cancelled.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_cancelled_while_a_callback_does_not_return() {
    struct Deaf;
    impl Hooks for Deaf {
        fn points(&self) -> &[HookPoint] {
            &[HookPoint::Deliverable]
        }

        fn timeout(&self) -> Duration {
            Duration::from_secs(3600)
        }

        fn on_deliverable(&self, ctx: HookCtx, _: HookCall) -> BoxFuture<'_, HookResult<Answer>> {
            Box::pin(async move {
                ctx.progress(None, Some("called")).await?;
                pending().await
            })
        }
    }
    let home = home();
    let supervisor = open(home.path()).await;
    let run = "echo x > deliverables/x; echo DELIVERABLE: deliverables/x >> optio.log; sleep 300";
    let (task, _registered) = supervisor.launch_with(spec(run), Arc::new(Deaf)).await.unwrap();
    assert_eq!(said(&task, TaskEventKind::Progress, 1).await, ["called"]);
    task.cancel(Default::default()).await.unwrap();
    let shown = soon("its end", task.wait()).await.unwrap();
    assert_eq!(shown.state, TaskState::Cancelled);
    supervisor.close().await;
}

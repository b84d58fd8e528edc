//! Following a task: `castra task run`, `logs -f` and `wait`; how its outcome is told and what exit code it is.

use super::{LogsArgs, RunArgs, WaitArgs, file};
use crate::cli::Ctx;
use crate::cli::escape::{one_line, visible};
use crate::cli::failure::{Failure, INTERRUPTED, TIMED_OUT};
use crate::cli::input::Lines;
use crate::cli::out::{Out, Style};
use crate::cli::turn::{Desk, Interrupts, next_line};
use crate::cli::view::{Show, View, Words};
use crate::client::{Client, Error, Item};
use castra_proto::task::{CancelTask, Level, ReasonCode, TaskEvent, TaskEventKind};
use castra_proto::{Task, TaskState, Timestamp};

use std::time::{Duration, Instant};
use uuid::Uuid;

/// One wait on the server; repeated, so that a connection that breaks costs no more than that.
const WAIT: u64 = 30;
/// Lines of what was seen last that are shown when a task has failed; `castra task show` has all.
const TAIL: usize = 10;

pub(super) async fn run(args: RunArgs, ctx: Ctx) -> Result<(), Failure> {
    let spec = file::build(args.file, &std::env::current_dir()?)?;
    // Before there is anything to interrupt: a Ctrl-C that comes while it is created counts too.
    let interrupts = Interrupts::new()?;
    let client = ctx.client().await?;
    let task = client.create_task(&spec, &Uuid::new_v4().to_string()).await?;
    see_through(client, task, args.detach, interrupts, ctx).await
}

/// A task that was just made, to its end: progress on stderr, its result on stdout, its outcome as the exit code.
pub(super) async fn see_through(
    client: Client,
    task: Task,
    detach: bool,
    mut interrupts: Interrupts,
    ctx: Ctx,
) -> Result<(), Failure> {
    if detach {
        return ctx.out.either(&task, || task.id.to_string());
    }
    let mut view = View::new(ctx.out.clone(), Show::Nothing, Words::Stderr);
    view.note(&ctx.out.paint(Style::Dim, &format!("task {}", task.id)))?;
    let followed = to_the_end(&client, &task, &mut view, &mut interrupts).await?;
    let Followed { task, interrupted } = followed;
    let Some(task) = task else { return Err(Failure::silent(INTERRUPTED)) };
    if ctx.out.json {
        ctx.out.json(&task)?;
    } else if let (TaskState::Done, Some(result)) = (task.state, &task.result) {
        ctx.out.line(result.trim_end_matches('\n'))?;
    }
    if let (Some(one), false) = (task.deliverables.first(), ctx.out.json) {
        ctx.out.hint(&format!("castra task get {} '{}'", task.id, one_line(&one.path, 200)));
    }
    outcome(&task, &ctx.out).map_err(|failure| match interrupted {
        true if task.state == TaskState::Cancelled => failure.exit(INTERRUPTED),
        _ => failure,
    })
}

struct Followed {
    /// As it ended; none when the person has left it to the daemon.
    task: Option<Task>,
    interrupted: bool,
}

/// Shows what the task does until it is over. The first Ctrl-C cancels it, the second leaves it alone.
async fn to_the_end(
    client: &Client,
    task: &Task,
    view: &mut View,
    interrupts: &mut Interrupts,
) -> Result<Followed, Failure> {
    let id = task.id.to_string();
    let mut follow = client.follow_task(&id, 0);
    let mut desk = Desk::new(if view.out.stderr_tty { Lines::of_terminal() } else { None });
    let mut session = None;
    let mut interrupted = false;
    loop {
        tokio::select! {
            item = follow.next() => match item? {
                None => return Err(Failure::new("the task was removed")),
                Some(Item::Partial(_)) => {}
                Some(Item::Reconnected) => {
                    view.note("(the daemon was away and is back; nothing was missed)")?;
                }
                Some(Item::Event(event)) => {
                    if may_be_the_end(&event) {
                        let task = client.task(&id).await?;
                        if task.state.is_final() {
                            return Ok(Followed { task: Some(task), interrupted });
                        }
                    }
                    if let Some(line) = progress(&event, &view.out) {
                        view.note(&line)?;
                    }
                    if let Some(of_attempt) = event.data["session_id"].as_str() {
                        session = Some(of_attempt.to_owned());
                    }
                    if event.data["to"] == TaskState::NeedsInput.as_str() && let Some(session) = &session {
                        desk.look(client, session, view).await?;
                    }
                }
            },
            () = interrupts.next() => {
                if std::mem::replace(&mut interrupted, true) {
                    view.note(&format!("the task goes on to its end; `castra task wait {id}` waits for it"))?;
                    return Ok(Followed { task: None, interrupted });
                }
                view.note("cancelling the task; Ctrl-C again leaves that to the daemon")?;
                let request = CancelTask { reason: Some("interrupted at the terminal".into()), grace_s: None };
                match client.cancel_task(&id, &request).await {
                    Ok(_) => {}
                    Err(Error::Refused(problem)) => view.note(&problem.to_string())?,
                    Err(error) => return Err(error.into()),
                }
            }
            line = next_line(&mut desk.lines), if desk.is_asking() => match (line, &session) {
                (Some(line), Some(session)) => desk.take(&line, client, session, view).await?,
                // Nobody is there any more: whoever likes may answer.
                _ => desk = Desk::new(None),
            },
        }
    }
}

fn may_be_the_end(event: &TaskEvent) -> bool {
    event.kind == TaskEventKind::State
        && event.data["to"].as_str().and_then(TaskState::parse).is_some_and(TaskState::is_final)
}

/// An event as a line of progress. What is told at the end is not told here.
fn progress(event: &TaskEvent, out: &Out) -> Option<String> {
    if event.level == Level::Debug || event.kind == TaskEventKind::Outcome {
        return None;
    }
    let percent = match event.kind {
        TaskEventKind::Progress => event.data["percent"].as_u64(),
        _ => None,
    };
    let percent = percent.map_or_else(|| " ".repeat(4), |percent| format!("{percent:>3}%"));
    let text = visible(&event.message).replace('\n', "\n      ");
    let style = match (event.level, event.kind) {
        (Level::Error, _) => Style::Red,
        (Level::Warning, _) => Style::Yellow,
        (_, TaskEventKind::Progress | TaskEventKind::Log) => Style::Plain,
        (_, TaskEventKind::Deliverable) => Style::Green,
        _ => Style::Dim,
    };
    let text = match event.kind {
        TaskEventKind::Deliverable => format!("deliverable {text}"),
        TaskEventKind::Rejected => format!("not taken: {text}"),
        TaskEventKind::Attention => format!("attention: {text}"),
        TaskEventKind::Browser => format!("to be opened: {text}"),
        _ => text,
    };
    Some(format!("{percent}  {}", out.paint(style, &text)))
}

/// How a task that is over ended, as this command's own end.
fn outcome(task: &Task, out: &Out) -> Result<(), Failure> {
    let reason = task.reason.as_ref();
    let message = reason.map(|reason| visible(&reason.message).into_owned()).unwrap_or_default();
    let id = task.id;
    match task.state {
        TaskState::Done => Ok(()),
        TaskState::Cancelled => Err(Failure::new(format!("the task was cancelled {message}").trim_end())
            .hint(format!("`castra task resume {id}` goes on, `castra task retry {id}` begins anew"))),
        TaskState::Failed => {
            let tail = reason.map(|reason| reason.tail.as_slice()).unwrap_or_default();
            for line in &tail[tail.len().saturating_sub(TAIL)..] {
                out.note(&out.paint(Style::Dim, &format!("    | {}", one_line(line, 400))));
            }
            let late = reason.is_some_and(|reason| reason.code == ReasonCode::Timeout);
            Err(Failure::new(format!("the task failed: {message}"))
                .hint(format!("`castra task logs {id}` tells more, `castra task retry {id}` begins anew"))
                .exit(if late { TIMED_OUT } else { 1 }))
        }
        state => Err(Failure::new(format!("the task is {state}"))),
    }
}

pub(super) async fn wait(args: WaitArgs, ctx: Ctx) -> Result<(), Failure> {
    let client = ctx.client().await?;
    let until = args.timeout.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let wanted = args.deliverable.as_deref();
    let (task, there) = loop {
        // Rounded up: the server is not asked again and again in the last second.
        let left = until.map_or(WAIT, |until| {
            until.saturating_duration_since(Instant::now()).as_millis().div_ceil(1000).min(WAIT.into()) as u64
        });
        let task = client.wait_task(&args.id, wanted, left).await?;
        let there = wanted.is_some_and(|path| task.deliverables.iter().any(|one| one.path == path));
        if there || task.state.is_final() {
            break (task, there);
        }
        if until.is_some_and(|until| until <= Instant::now()) {
            return Err(Failure::new(format!("the task is still {}", task.state)).exit(TIMED_OUT));
        }
    };
    ctx.out.either(&task, || format!("{} {}", task.id, task.state))?;
    match wanted {
        _ if there => Ok(()),
        Some(path) if task.state == TaskState::Done => {
            Err(Failure::new(format!("the task is done and has not handed over {path:?}")))
        }
        _ => outcome(&task, &ctx.out),
    }
}

pub(super) async fn logs(args: LogsArgs, ctx: Ctx) -> Result<(), Failure> {
    let client = ctx.client().await?;
    if !args.follow {
        let mut after = "0".to_owned();
        loop {
            let page = client.task_log(&args.id, args.level, &after).await?;
            for one in &page.items {
                if ctx.out.json {
                    ctx.out.json(one)?;
                } else {
                    ctx.out.line(&line(one.seq, one.at, one.level, &one.message))?;
                }
            }
            match page.next {
                Some(next) => after = next,
                None => return Ok(()),
            }
        }
    }
    // By its id: a name may be another task's later.
    let id = client.task(&args.id).await?.id.to_string();
    let mut follow = client.follow_task(&id, 0);
    while let Some(item) = follow.next().await? {
        match item {
            Item::Event(event) => {
                if event.level >= args.level {
                    if ctx.out.json {
                        ctx.out.json(&*event)?;
                    } else {
                        ctx.out.line(&line(event.seq, event.at, event.level, &event.message))?;
                    }
                }
                // Of a task that went on after an end, that end is history.
                if may_be_the_end(&event) {
                    let task = client.task(&id).await?;
                    if task.state.is_final() && task.attempt == event.attempt {
                        return Ok(());
                    }
                }
            }
            Item::Partial(_) => {}
            Item::Reconnected => ctx.out.note("(the daemon was away and is back; nothing was missed)"),
        }
    }
    Ok(())
}

fn line(seq: u64, at: Timestamp, level: Level, message: &str) -> String {
    let at = at.to_string();
    let clock = at.get(11..19).unwrap_or_default();
    let text = message.replace('\n', &format!("\n{:27}", ""));
    format!("{seq:>6}  {clock}  {:<7}  {text}", level.as_str()).trim_end().to_owned()
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;

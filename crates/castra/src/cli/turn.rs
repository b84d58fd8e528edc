//! Follows one message to its answer, shows what happens meanwhile, and asks a person who is there.
//! The daemon may be restarted in the middle of it.

use super::ask::{self, Reply};
use super::escape::one_line;
use super::failure::Failure;
use super::input::Lines;
use super::out::Style;
use super::progress::{argument, tool_name};
use super::view::{TICK, View};
use crate::client::{Client, Error, Follow, Item};
use castra_proto::api::{Message, MessageState};
use castra_proto::permission::{PermissionRequest, PermissionState};
use castra_proto::{ErrorCode, Event, MessageId, OwnKind, Session};
use std::collections::HashSet;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::MissedTickBehavior;

/// For events that are committed already.
const DRAIN: Duration = Duration::from_secs(10);

/// How the wait ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// Answered, interrupted or withdrawn.
    Message(Box<Message>),
    /// The session's run is over, and the message has no answer.
    Session(Box<Session>),
    /// The person has left; the session goes on.
    Left,
}

/// The permission requests of one session, and whoever answers them here.
pub(super) struct Desk {
    /// Lines of a person; without one the command that answers is named.
    pub(super) lines: Option<Lines>,
    /// Asked or announced already.
    seen: HashSet<String>,
    asking: Option<PermissionRequest>,
    editing: bool,
    /// The tour answers for the newcomer, and shows it.
    demo: bool,
    answered: bool,
}

impl Desk {
    pub(super) fn new(lines: Option<Lines>) -> Self {
        Self { lines, seen: HashSet::new(), asking: None, editing: false, demo: false, answered: false }
    }

    /// Allows everything, visibly: for `castra demo`, whose model is castra's own.
    pub(super) fn for_demo() -> Self {
        Self { demo: true, ..Self::new(None) }
    }

    pub(super) fn has_answered(&self) -> bool {
        self.answered
    }

    pub(super) fn is_asking(&self) -> bool {
        self.asking.is_some()
    }

    /// Looks at what is pending now, and asks for the first that nobody has been asked for.
    pub(super) async fn look(
        &mut self,
        client: &Client,
        session: &str,
        view: &mut View,
    ) -> Result<(), Failure> {
        let pending = match client.permissions(session).await {
            Ok(all) => all.into_iter().filter(|request| request.state == PermissionState::Pending),
            // A session that was removed has nothing pending.
            Err(Error::Refused(problem)) if problem.code == ErrorCode::SessionNotFound => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let pending: Vec<PermissionRequest> = pending.collect();
        if let Some(asking) = &self.asking
            && !pending.iter().any(|request| request.request_id == asking.request_id)
        {
            self.asking = None;
            view.note("(it was answered elsewhere)")?;
        }
        for request in pending {
            if self.asking.is_some() || !self.seen.insert(request.request_id.clone()) {
                continue;
            }
            match &mut self.lines {
                None if self.demo => {
                    show(&request, view)?;
                    view.note(&format!("{}y    (the demo answers for you)", ask::prompt(&request)))?;
                    client.answer_permission(session, &request.request_id, &ask::allow(&request)).await?;
                    self.answered = true;
                }
                Some(lines) => {
                    lines.discard();
                    show(&request, view)?;
                    view.out.raw_note(&ask::prompt(&request));
                    self.asking = Some(request);
                    self.editing = false;
                }
                None => announce(session, &request, view)?,
            }
        }
        Ok(())
    }

    /// A person's line while something is asked.
    pub(super) async fn take(
        &mut self,
        line: &str,
        client: &Client,
        session: &str,
        view: &mut View,
    ) -> Result<(), Failure> {
        let Some(request) = &self.asking else { return Ok(()) };
        let reply = if self.editing {
            match ask::edited(request, line) {
                Some(answer) => Reply::Answer(Box::new(answer)),
                None => Reply::Again("this is not a JSON object"),
            }
        } else {
            ask::reply(request, line)
        };
        match reply {
            Reply::Answer(answer) => {
                let answered = client.answer_permission(session, &request.request_id, &answer).await;
                self.asking = None;
                match answered {
                    Ok(_) => {}
                    Err(Error::Refused(problem))
                        if matches!(
                            problem.code,
                            ErrorCode::PermissionGone | ErrorCode::Conflict | ErrorCode::InputChanged
                        ) =>
                    {
                        view.note(&format!("({problem})"))?;
                    }
                    Err(error) => return Err(error.into()),
                }
                // Another one may have been waiting behind it.
                self.look(client, session, view).await?;
            }
            Reply::Edit => {
                self.editing = true;
                view.out.raw_note(ask::edit_prompt(request));
            }
            Reply::Again(why) => {
                let prompt =
                    if self.editing { ask::edit_prompt(request).into() } else { ask::prompt(request) };
                view.out.note(why);
                view.out.raw_note(&prompt);
            }
        }
        Ok(())
    }
}

fn show(request: &PermissionRequest, view: &mut View) -> Result<(), Failure> {
    for (style, line) in ask::show(request) {
        let line = view.out.paint(style, &line);
        view.note(&line)?;
    }
    Ok(())
}

fn announce(session: &str, request: &PermissionRequest, view: &mut View) -> Result<(), Failure> {
    let what = one_line(&argument(&request.input), 200);
    let line = format!("waiting for permission: {} {what}", tool_name(&request.tool));
    let line = view.out.paint(Style::Yellow, line.trim_end());
    view.note(&line)?;
    let id = one_line(&request.request_id, 100);
    view.out.hint(&format!("castra approve {session} {id}   or   castra deny {session} {id} --message …"));
    Ok(())
}

/// Ctrl-C, first and second.
pub(super) struct Interrupts(Signal);

impl Interrupts {
    pub(super) fn new() -> Result<Self, Failure> {
        Ok(Self(signal(SignalKind::interrupt())?))
    }

    pub(super) async fn next(&mut self) {
        self.0.recv().await;
    }
}

/// After which events a message may have got its end.
fn may_end(event: &Event) -> bool {
    event.kind.as_str() == "result"
        || [OwnKind::InputDelivered, OwnKind::State, OwnKind::Exit, OwnKind::Queued]
            .into_iter()
            .any(|own| event.kind.is(own))
}

fn may_ask(event: &Event) -> bool {
    [OwnKind::PermissionRequested, OwnKind::PermissionAnswered, OwnKind::RequiresAction]
        .into_iter()
        .any(|own| event.kind.is(own))
}

/// Shows the session from `after` on until `message` has its end.
pub(super) async fn to_the_end(
    client: &Client,
    session: &Session,
    message: MessageId,
    after: u64,
    view: &mut View,
    desk: &mut Desk,
) -> Result<Ended, Failure> {
    let id = session.id.to_string();
    let mut follow = client.follow(&id, after);
    let mut interrupts = Interrupts::new()?;
    let mut interrupted = false;
    let mut ticks = tokio::time::interval(TICK);
    // Whoever thought about a question for a minute is not shown that minute's frames at once.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            item = follow.next() => {
                let check = match item? {
                    // Removed by somebody: as it was last known.
                    None => return Ok(Ended::Session(Box::new(session.clone()))),
                    Some(Item::Partial(partial)) => {
                        view.partial(&partial)?;
                        false
                    }
                    Some(Item::Reconnected) => {
                        view.note("(the daemon was away and is back; nothing was missed)")?;
                        desk.look(client, &id, view).await?;
                        true
                    }
                    Some(Item::Event(event)) => {
                        view.event(&event)?;
                        if may_ask(&event) {
                            desk.look(client, &id, view).await?;
                        }
                        may_end(&event)
                    }
                };
                if check && let Some(ended) = ended(client, &id, message).await? {
                    drain(&mut follow, &ended, view).await?;
                    return Ok(ended);
                }
            }
            () = interrupts.next() => {
                if std::mem::replace(&mut interrupted, true) {
                    return Ok(Ended::Left);
                }
                view.note("interrupting the turn; Ctrl-C again leaves the session running")?;
                match client.act(&id, "interrupt").await {
                    Ok(_) => {}
                    Err(Error::Refused(problem)) => view.note(&problem.to_string())?,
                    Err(error) => return Err(error.into()),
                }
            }
            line = next_line(&mut desk.lines), if desk.is_asking() => match line {
                Some(line) => desk.take(&line, client, &id, view).await?,
                None => {
                    // Nobody is there any more: whoever is named next may answer.
                    desk.lines = None;
                    desk.seen.clear();
                    desk.asking = None;
                    desk.look(client, &id, view).await?;
                }
            },
            _ = ticks.tick(), if view.spins() && !desk.is_asking() => view.tick("working"),
        }
    }
}

pub(super) async fn next_line(lines: &mut Option<Lines>) -> Option<String> {
    match lines {
        Some(lines) => lines.next().await,
        None => std::future::pending().await,
    }
}

/// The message's end, if it has one; else the session's.
async fn ended(client: &Client, session: &str, message: MessageId) -> Result<Option<Ended>, Failure> {
    let found = client.message(session, message).await?;
    match found.state {
        MessageState::Answered | MessageState::Interrupted | MessageState::Withdrawn => {
            Ok(Some(Ended::Message(Box::new(found))))
        }
        _ => {
            let session = client.show(session).await?;
            let over = session.state.is_final() && !session.spec.auto_resume;
            Ok(over.then(|| Ended::Session(Box::new(session))))
        }
    }
}

/// What is committed before the result is shown before the answer: the two are read on different ways.
/// Only for the eyes, so it is not waited for long.
async fn drain(follow: &mut Follow, ended: &Ended, view: &mut View) -> Result<(), Failure> {
    let until = match ended {
        Ended::Message(message) => message.result.as_ref().map_or(0, |result| result.seq),
        _ => 0,
    };
    let rest = async {
        while follow.last() < until {
            match follow.next().await? {
                Some(Item::Event(event)) => view.event(&event)?,
                Some(Item::Partial(partial)) => view.partial(&partial)?,
                Some(Item::Reconnected) => {}
                None => break,
            }
        }
        Ok(())
    };
    tokio::time::timeout(DRAIN, rest).await.unwrap_or(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use castra_proto::Kind;

    #[test]
    fn only_what_can_end_or_ask_costs_a_call() {
        let data = serde_json::value::to_raw_value("").unwrap();
        let event = |kind: &str| Event {
            seq: 1,
            at: castra_proto::Timestamp(0),
            session_id: castra_proto::SessionId::now(),
            run: 1,
            turn: 1,
            kind: Kind::parse(kind),
            data: data.clone(),
            raw: None,
        };
        let all = [
            "result",
            "state",
            "exit",
            "input_delivered",
            "queued",
            "permission_requested",
            "permission_answered",
            "requires_action",
            "assistant",
            "user",
            "stderr",
            "idle",
            "partial",
        ];
        let ends: Vec<&str> = all.into_iter().filter(|kind| may_end(&event(kind))).collect();
        let asks: Vec<&str> = all.into_iter().filter(|kind| may_ask(&event(kind))).collect();
        assert_eq!(ends, ["result", "state", "exit", "input_delivered", "queued"]);
        assert_eq!(asks, ["permission_requested", "permission_answered", "requires_action"]);
    }
}

//! Permission requests answered by a callback: in a task of its own each, so that one that waits, sends or panics
//! holds up nobody. Owns no queue: what waits is read from the session.

use super::{Events, Session};
use crate::Result;
use castra_proto::permission::{PermissionAnswer, PermissionRequest, PermissionState};
use castra_proto::{ErrorCode, OwnKind};
use futures::FutureExt;
use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use tokio::task::{JoinHandle, JoinSet};

/// Callbacks of one session that run at once; further requests wait in the session until one is done.
const CALLBACKS: usize = 32;

/// What claude is told when the program's callback panicked.
const PANICKED: &str = "The program that decides about permissions failed, so this is denied.";

/// Answers a session's permission requests for as long as it lives; dropped, it answers nothing more, and callbacks
/// that have not decided are cancelled. What they leave unanswered waits for whoever decides next.
#[must_use = "permission requests are answered only while this lives"]
#[derive(Debug)]
pub struct Approver(JoinHandle<()>);

impl Drop for Approver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Session {
    /// Lets `decide` answer what waits now and whatever will be asked, over all runs.
    ///
    /// It returns a [`PermissionAnswer`], or `None` to leave the request to somebody else. It may send to its own
    /// session, or ask a person and take as long as they do: claude waits, everything else goes on. If it panics, the
    /// request is denied, because claude would wait for ever. An answer that comes too late, because somebody else
    /// decided or the turn was interrupted, is dropped.
    ///
    /// ```
    /// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/demo/setup.in"));
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let home = tempfile::tempdir()?;
    /// # let supervisor = castra_supervisor::Supervisor::open(demo_config(home.path()).await?).await?;
    /// # let session = supervisor.start(demo_spec()).await?;
    /// use castra_proto::permission::PermissionAnswer;
    ///
    /// let approver = session.on_permission(|request| async move {
    ///     match request.tool.as_str() {
    ///         "Read" | "Bash" => PermissionAnswer::allow(),
    ///         tool => PermissionAnswer::deny(format!("{tool} is not for you")),
    ///     }
    /// }).await?;
    /// let answer = session.ask("write a haiku to haiku.txt").await?;
    /// assert!(answer.text.contains("Write is not for you"), "{}", answer.text);
    /// # drop(approver);
    /// # session.close().await?;
    /// # supervisor.close().await;
    /// # Ok(()) }
    /// ```
    ///
    /// Errors: `session_not_found`.
    pub async fn on_permission<F, Fut, A>(&self, decide: F) -> Result<Approver>
    where
        F: Fn(PermissionRequest) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = A> + Send + 'static,
        A: Into<Option<PermissionAnswer>> + Send + 'static,
    {
        // Subscribed before what waits is read: a request between the two is seen twice, not never.
        let events = self.events(self.show().await?.head_seq).await?;
        let session = self.clone();
        Ok(Approver(tokio::spawn(answer_all(session, events, Arc::new(decide)))))
    }
}

async fn answer_all<F, Fut, A>(session: Session, mut events: Events, decide: Arc<F>)
where
    F: Fn(PermissionRequest) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = A> + Send + 'static,
    A: Into<Option<PermissionAnswer>> + Send + 'static,
{
    let mut running = JoinSet::new();
    let mut shown: HashSet<String> = HashSet::new();
    loop {
        let waiting = match session.permissions().await {
            Ok(waiting) => waiting,
            Err(error) if error.problem().code == ErrorCode::SessionNotFound => return,
            Err(error) => {
                // A store that cannot be read now; the next event is the next try.
                tracing::warn!(session = %session.id(), %error, "permission requests cannot be read");
                Vec::new()
            }
        };
        shown.retain(|id| waiting.iter().any(|request| request.request_id == *id));
        for request in waiting {
            if request.state != PermissionState::Pending || running.len() >= CALLBACKS {
                continue;
            }
            if shown.insert(request.request_id.clone()) {
                running.spawn(answer_one(session.clone(), request, decide.clone()));
            }
        }
        loop {
            tokio::select! {
                event = events.next() => match event {
                    None => return,
                    Some(Ok(event)) if !event.kind.is(OwnKind::PermissionRequested) => {}
                    Some(_) => break,
                },
                Some(_) = running.join_next() => break,
            }
        }
    }
}

async fn answer_one<F, Fut, A>(session: Session, request: PermissionRequest, decide: Arc<F>)
where
    F: Fn(PermissionRequest) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = A> + Send + 'static,
    A: Into<Option<PermissionAnswer>> + Send + 'static,
{
    let (id, hash) = (request.request_id.clone(), request.input_hash.clone());
    // The call itself may panic too, not only the future that it makes. Nothing of it is used afterwards.
    let decided = AssertUnwindSafe(async { decide(request).await.into() }).catch_unwind().await;
    let mut answer = match decided {
        Ok(Some(answer)) => answer,
        Ok(None) => return,
        Err(_) => {
            tracing::error!(session = %session.id(), request = id, "the permission callback panicked");
            PermissionAnswer::deny(PANICKED)
        }
    };
    answer.input_hash.get_or_insert(hash);
    if let Err(error) = session.answer(&id, answer).await {
        tracing::info!(session = %session.id(), request = id, %error, "a permission answer came too late");
    }
}

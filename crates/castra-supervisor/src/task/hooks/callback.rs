//! Hooks of the program that embeds castra: a trait, and how one of its methods is called. Each call is a task of its
//! own: one that panics, is dropped or never returns is a hook that failed, and holds up nobody longer than its time.

use super::context::HookCtx;
use super::{Answer, Said};
use castra_proto::task::{HookCall, HookPoint, OnError};
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;

/// Why a callback could not do it; its text is what the task's log says.
pub type HookError = Box<dyn std::error::Error + Send + Sync>;
pub type HookResult<T> = Result<T, HookError>;

/// What a program does at points of a task's life. Of the methods those are called that `points` names.
///
/// They may be called again with the same [`HookCall::id`] when the program was killed meanwhile; what they answer
/// reaches the agent once. Until one returns, the task's next report waits; a cancel does not, it drops the call.
pub trait Hooks: Send + Sync + 'static {
    /// When it is to be called. Asked often: a constant.
    fn points(&self) -> &[HookPoint];

    /// What one call may take.
    fn timeout(&self) -> Duration {
        Duration::from_secs(60)
    }

    /// What a failure means for the task.
    fn on_error(&self, on: HookPoint) -> OnError {
        if on == HookPoint::Before { OnError::Fail } else { OnError::Warn }
    }

    /// Before claude starts, in each attempt.
    fn before(&self, _ctx: HookCtx, _call: HookCall) -> BoxFuture<'_, HookResult<()>> {
        Box::pin(async { Ok(()) })
    }

    /// After the session was stopped, however the attempt ended: `call.outcome`.
    fn after(&self, _ctx: HookCtx, _call: HookCall) -> BoxFuture<'_, HookResult<()>> {
        Box::pin(async { Ok(()) })
    }

    /// A file was handed over: `call.deliverable`; [`HookCtx::offered`] has its bytes.
    fn on_deliverable(&self, _ctx: HookCtx, _call: HookCall) -> BoxFuture<'_, HookResult<Answer>> {
        Box::pin(async { Ok(Answer::Accepted) })
    }

    /// The agent has a question: `call.message`.
    fn on_caller_message(&self, _ctx: HookCtx, _call: HookCall) -> BoxFuture<'_, HookResult<Answer>> {
        Box::pin(async { Ok(Answer::Accepted) })
    }

    /// The task has changed its state, and goes on meanwhile: `call.event`. Changes that nobody was told of before the
    /// program ended are not told again.
    fn on_state(&self, _ctx: HookCtx, _call: HookCall) -> BoxFuture<'_, HookResult<()>> {
        Box::pin(async { Ok(()) })
    }
}

/// Calls it, and waits as long as it may take.
pub(super) async fn call(hooks: Arc<dyn Hooks>, ctx: HookCtx, call: HookCall) -> Said {
    let limit = hooks.timeout();
    let work = async move {
        match call.on {
            HookPoint::Before => hooks.before(ctx, call).await.map(|()| Answer::Accepted),
            HookPoint::After => hooks.after(ctx, call).await.map(|()| Answer::Accepted),
            HookPoint::Deliverable => hooks.on_deliverable(ctx, call).await,
            HookPoint::CallerMessage => hooks.on_caller_message(ctx, call).await,
            HookPoint::State => hooks.on_state(ctx, call).await.map(|()| Answer::Accepted),
            HookPoint::Upload | HookPoint::Message => Ok(Answer::Accepted),
        }
    };
    let mut running = AbortOnDrop(tokio::spawn(work));
    match tokio::time::timeout(limit, &mut running.0).await {
        Ok(Ok(Ok(answer))) => Ok(answer),
        Ok(Ok(Err(error))) => Err(error.to_string()),
        Ok(Err(error)) if error.is_panic() => Err("the callback panicked".into()),
        Ok(Err(_)) => Err("the callback was dropped".into()),
        Err(_) => Err(format!("the callback did not return within {} s", limit.as_secs_f64())),
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<HookResult<Answer>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

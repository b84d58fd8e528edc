//! Drives the newest run of each session, and says of it when that fails.

use super::actor::Actor;
use crate::Error;
use crate::engine::{Engine, now};
use castra_proto::SessionId;
use castra_store::CommitError;
use std::sync::Arc;
use tracing::{debug, warn};

/// Drives the newest run of a session to its end, or to the supervisor's. False: it failed, and may work
/// when it is tried again.
pub(crate) async fn drive(engine: &Arc<Engine>, id: SessionId) -> bool {
    let mut closing = engine.closing.subscribe();
    let driven = async {
        match Actor::load(engine, id).await {
            Ok(Some(mut actor)) => actor.live().await,
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        }
    };
    tokio::select! {
        done = driven => match done {
            Ok(()) => {
                engine.troubles.over(id);
                true
            }
            Err(Error::Commit(error @ CommitError::Fenced { .. })) => {
                // Another server owns the session now.
                warn!(session = %id, %error, "fenced");
                true
            }
            Err(error) => {
                // Once for each reason: it is tried again until it works.
                if engine.troubles.failed(id, &error, now()) {
                    warn!(session = %id, %error, "the session's actor failed; it is tried again");
                }
                false
            }
        },
        // Dropped wherever it stands: the next one begins from the store.
        _ = closing.wait_for(|closing| *closing) => {
            debug!(session = %id, "let go");
            true
        }
    }
}

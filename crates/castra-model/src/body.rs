//! Steps taken in time: the response body. Owns waiting; refuses to hold more than one step.

use crate::frames::{Frames, Step};
use bytes::Bytes;
use futures::stream::{self, Stream};

/// The connection ends here on purpose.
#[derive(Debug, thiserror::Error)]
#[error("the script cuts the connection")]
pub(crate) struct Cut;

/// An error item makes hyper drop the connection without the end of the body, as a lost network does.
/// The body ends with its connection, whatever it waits for.
pub(crate) fn stream(frames: Frames) -> impl Stream<Item = Result<Bytes, Cut>> {
    stream::unfold(Some(frames), |state| async move {
        let mut frames = state?;
        loop {
            match frames.next()? {
                Step::Send(text) => return Some((Ok(Bytes::from(text)), Some(frames))),
                Step::Wait(length) => tokio::time::sleep(length).await,
                Step::Forever => std::future::pending().await,
                Step::Cut => {
                    // hyper writes out what it holds only while a body is pending.
                    tokio::task::yield_now().await;
                    return Some((Err(Cut), None));
                }
            }
        }
    })
}

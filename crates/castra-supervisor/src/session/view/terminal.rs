//! What a session's derived state holds of a terminal.

use castra_proto::MessageId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a run on a terminal has said beside its transcript, as of the cursor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct TerminalView {
    /// Rule of each tailed stream, by its newest `file` note.
    pub streams: BTreeMap<u8, u8>,
    /// claude's state file, as it was last.
    pub state: Option<String>,
    /// The dialog that was asked about last. It stays on the screen for a moment after its answer.
    pub asked: Option<String>,
    /// Answers that came to nothing: what is asked again is another request.
    pub in_vain: u32,
    /// A slash command that was entered and has not come to its end.
    pub command: Option<OpenCommand>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct OpenCommand {
    pub message: MessageId,
    /// What it has printed.
    pub output: String,
}

//! claude's transcripts, as bytes: names, previews, the chain of records, writing one. Refuses to open files.

use uuid::Uuid;

/// The folder name of a project under `projects/`, from the real path of its folder.
pub fn project_key(real_path: &str) -> String {
    real_path.to_owned()
}

/// In what a message's uuid was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A `user` record: it was, or is, the prompt of a turn.
    User,
    /// An attachment: it joined a turn that was running a tool.
    Attachment,
}

pub fn find_uuid(_transcript: &[u8], _uuid: Uuid) -> Option<Found> {
    None
}

/// What became of the turn that a message belongs to, when claude died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cutoff {
    pub answered: bool,
    /// A tool was called and no result of it is on disk: it may have run.
    pub tool_in_flight: bool,
}

/// None: the transcript does not know the message.
pub fn cutoff(_transcript: &[u8], _uuid: Uuid) -> Option<Cutoff> {
    None
}

/// A conversation's first look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preview {
    pub session_id: Option<String>,
    pub title: Option<String>,
    pub cwd: Option<String>,
    pub first_input: Option<String>,
    pub last_input: Option<String>,
    pub last_output: Option<String>,
}

pub fn preview(_transcript: &[u8]) -> Preview {
    Preview::default()
}

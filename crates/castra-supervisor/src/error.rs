//! What can go wrong, as facts. Texts for people, codes and statuses are chosen in `Error::problem`.

use castra_proto::{ErrorCode, Problem};

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Already in the words of the API; the usual way for a rule to refuse.
    #[error("{0}")]
    Refused(Problem),
}

impl Error {
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self::Refused(Problem::new(code, detail))
    }

    /// The public message, with code and next step. Never holds a secret.
    pub fn problem(&self) -> Problem {
        match self {
            Self::Refused(problem) => problem.clone(),
        }
    }
}

//! Teams as the store has them, and the one transaction that changes them. Refuses SQL and policy.

use castra_proto::{TeamId, Timestamp};
use serde_json::Value;

#[derive(Clone, Debug, PartialEq)]
pub struct TeamRow {
    pub id: TeamId,
    pub name: Option<String>,
    /// Commits so far.
    pub head: u64,
    /// JSON, redacted; `Store::team_secrets` has the rest.
    pub spec: String,
    /// JSON: the derived state.
    pub view: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

pub type FoundTeam = crate::rows::Found<TeamRow, TeamId>;

/// A team to be. Its id is the commit's.
#[derive(Clone, Debug)]
pub struct NewTeam {
    /// Refused as `NameTaken` when another team bears it.
    pub name: Option<String>,
    /// SHA-256 of what was asked for. The same id with the same one is the same request, made again.
    pub request_hash: [u8; 32],
    /// JSON, with `"***"` for every secret value.
    pub spec: String,
    /// The secret values. Stored encrypted.
    pub secrets: Option<Value>,
}

/// One atomic transaction on one team.
#[derive(Clone, Debug)]
pub struct TeamCommit {
    pub team: TeamId,
    pub at: Timestamp,
    pub create: Option<NewTeam>,
    /// The head that this was decided from; refused as `Moved` when it is another one. None for a new team only.
    pub head: Option<u64>,
    /// JSON: the derived state.
    pub view: String,
}

/// The commit is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TeamCommitted {
    pub head: u64,
    /// The team was there already, made by the same request; nothing was changed.
    pub existed: bool,
}

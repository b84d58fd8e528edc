//! What comes into a task's workspace from outside: files that are fetched before the start, and files that people hand
//! in. Refuses to fetch.

use crate::TaskId;
use serde::{Deserialize, Serialize};

/// A file, or a folder, that is fetched into the workspace before each fresh attempt. One that cannot be had fails it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Input {
    /// Where it goes: below the folder that the agent works in, or in a folder of the user's own below
    /// `.castra/<task>/`.
    pub path: String,
    pub from: Source,
    /// Hexadecimal; of a file only. Another content is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Permission bits of a file, octal, as `"755"`. When unset, those of a `file`; otherwise `"644"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Its URL may lead to a private address; needs the scope `admin`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_private: bool,
}

/// Where an input is fetched from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Source {
    /// A file or a folder of the task's host, absolute.
    File(String),
    /// `http` or `https`, fetched by the task's host with its `curl`.
    Url(String),
    /// A repository, fetched with the host's `git`.
    Git(Git),
    /// What another task has handed over.
    Blob(Blob),
}

/// Exactly one of `url` and `path`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Git {
    /// `http` or `https`, without a login.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// A repository on the task's host, absolute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// A branch, a tag or a commit; what the repository has checked out, or its default branch, when unset.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Of `path`: a worktree of that repository instead of a copy. Only in a fresh workspace.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub worktree: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Blob {
    /// The task, by id or name; its id from the creation on.
    pub task: String,
    /// Below its `deliverables/`.
    pub path: String,
    /// The newest at the start of the attempt when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
}

/// A file that was handed in: `POST /tasks/{id}/uploads`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Uploaded {
    pub task_id: TaskId,
    /// Below the folder that the agent works in.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Hexadecimal.
    pub sha256: String,
}

//! Everything of castra that leaves a process: ids, events, API types, shim frames. Refuses I/O and policy.
//!
//! Wire types are separate from the types that code computes with; they are converted at the edges.
//! Each has a committed fixture under `fixtures/`, so that a change of the wire shows up as a diff.

pub mod api;
pub mod error;
pub mod event;
pub mod id;
pub mod permission;
pub mod session;
pub mod shim;
pub mod spec;
pub mod task;
pub mod team;
pub mod time;

pub use error::{ErrorCode, Problem};
pub use event::{Event, Kind, OwnKind};
pub use id::{BlockId, CommandId, MessageId, RunId, ScheduleId, SessionId, TaskId, TeamId, TokenId};
pub use session::{RunState, Session};
pub use spec::SessionSpec;
pub use task::{Task, TaskSpec, TaskState};
pub use team::{Team, TeamSpec};
pub use time::Timestamp;

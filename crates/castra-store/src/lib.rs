//! castra's schema, migrations and transactions: the only SQL. Refuses policy and clocks: callers say what
//! is to be, when it happened, and under which guards.
//!
//! Writing is [`Store::commit`]: one call, one atomic transaction, durable (`synchronous=FULL`) before it
//! returns. Reading is everything else on [`Store`]; readers never wait for the writer.

mod blob;
mod commit;
mod error;
mod key;
mod rows;
mod schedule;
mod sqlite;
mod store;
mod task;
mod team;
mod writer;

pub use commit::{
    Change, Commit, Committed, CommittedBatch, Duplicate, Guard, Idempotency, MessageUpdate, NewCommand,
    NewEvent, NewMessage, NewRun, NewServerEvent, NewSession, NewToken, Observer, RunUpdate, SeqAt,
    SessionUpdate,
};
pub use error::{CommitError, StoreError, TaskError, TeamError};
pub use rows::{
    CommandRow, CommandState, Counts, Cursor, EndedSession, Found, IdempotencyRow, Listing, LiveSession,
    MessageRow, RunRow, SessionFilter, SessionRow, SessionSize, StoredEvent, TokenRow,
};
pub use schedule::{Advance, DefinitionRow, ScheduleRow};
pub use store::{Options, Store};
pub use task::{
    FoundTask, HookPlace, NewTask, NewTaskEvent, StoredTaskEvent, TaskCommit, TaskCommitted, TaskFilter,
    TaskRow,
};
pub use team::{FoundTeam, NewTeam, TeamCommit, TeamCommitted, TeamRow};

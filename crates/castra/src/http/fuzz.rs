//! Every parser of a JSON body, for fuzzing: whatever is sent, it is read or refused by name, never worse.

use super::body::{NoFields, parse};
use castra_proto::api::{
    Backup, Control, CreateTicket, CreateToken, Fork, InstallClaude, Keys, Resume, SendMessage, SessionPatch,
    SignIn,
};
use castra_proto::permission::PermissionAnswer;
use castra_proto::task::{
    CancelTask, CancelTasks, CreateBlock, Definition, HookExec, HookProgress, HookText, Launch,
    SchedulePatch, ScheduleSpec,
};
use castra_proto::team::{AskAgent, ClearTeam, Fanout, RouteAnswer, RunFlow, StopTeam};
use castra_proto::{ErrorCode, SessionSpec, TaskSpec, TeamSpec};
use serde::Serialize;
use serde::de::DeserializeOwned;

macro_rules! bodies {
    ($($body:ident)*) => {
        /// The bodies, by their names in the document.
        #[cfg(test)]
        pub(super) const BODIES: &[&str] = &[$(stringify!($body),)*];

        /// Feeds `data` to the parser of each body.
        ///
        /// # Panics
        /// When a parser refuses by another code than its own two, or does not read what it has written.
        #[doc(hidden)]
        pub fn fuzz_http(data: &[u8]) {
            $(one::<$body>(data);)*
            let _ = parse::<NoFields>(data);
        }
    };
}

bodies! {
    AskAgent Backup CancelTask CancelTasks ClearTeam Control CreateBlock CreateTicket CreateToken Definition
    Fanout Fork HookExec HookProgress HookText InstallClaude Keys Launch PermissionAnswer Resume
    RouteAnswer RunFlow SchedulePatch ScheduleSpec SendMessage SessionPatch SessionSpec SignIn StopTeam TaskSpec TeamSpec
}

fn one<T: DeserializeOwned + Serialize>(data: &[u8]) {
    match parse::<T>(data) {
        Err(refusal) => {
            let code = refusal.problem().code;
            assert!(matches!(code, ErrorCode::UnknownField | ErrorCode::InvalidRequest), "{code}");
        }
        Ok(value) => {
            let again = serde_json::to_vec(&value).map(|text| parse::<T>(&text).is_ok());
            assert!(matches!(again, Ok(true)), "written and not read again");
        }
    }
}

#[cfg(test)]
#[path = "tests/fuzz.rs"]
mod tests;

//! Identifiers: UUIDs with a type each, so that one is never taken for another.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new id that sorts by its time of creation (UUIDv7).
            pub fn now() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }
    };
}

id!(
    /// A session of castra. Not claude's own session id, which changes on `/clear` and fork.
    SessionId
);
id!(
    /// One run, i.e. one shim and one claude; also the value of `CASTRA_RUN` in its environment.
    RunId
);
id!(
    /// A message, and at the same time the `uuid` that claude knows it by.
    MessageId
);
id!(
    /// A command: permission answer, interrupt, stop, control request. Also its shim input id.
    CommandId
);
id!(
    /// A task. Its attempts drive sessions, whose ids follow from it.
    TaskId
);
id!(
    /// A team. The sessions of its agents follow from it.
    TeamId
);
id!(
    /// A schedule. The tasks of its firings have ids that follow from it.
    ScheduleId
);
id!(
    /// A launch block.
    BlockId
);
id!(
    /// An API token's public name; the secret part is never stored.
    TokenId
);

impl MessageId {
    /// The id of a message that was posted with an `Idempotency-Key`: the same for every retry.
    pub fn of_key(session: SessionId, key: &str) -> Self {
        Self(Uuid::new_v5(&session.0, key.as_bytes()))
    }
}

impl TaskId {
    /// The id of a task that was posted with an `Idempotency-Key`: the same for every retry.
    pub fn of_key(scope: &str, key: &str) -> Self {
        Self(Uuid::new_v5(&Uuid::new_v5(&Uuid::NAMESPACE_OID, scope.as_bytes()), key.as_bytes()))
    }

    /// The session of a fresh attempt: whoever makes it after a crash makes the same.
    pub fn session(self, attempt: u32) -> SessionId {
        SessionId(Uuid::new_v5(&self.0, format!("attempt {attempt}").as_bytes()))
    }

    /// A child that the task declares, counted from 0, of its attempt: made again, it is the same.
    pub fn child(self, attempt: u32, n: usize) -> TaskId {
        TaskId(Uuid::new_v5(&self.0, format!("child {attempt}:{n}").as_bytes()))
    }
}

impl TeamId {
    /// The id of a team that was posted with an `Idempotency-Key`: the same for every retry.
    pub fn of_key(scope: &str, key: &str) -> Self {
        let scope = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("team {scope}").as_bytes());
        Self(Uuid::new_v5(&scope, key.as_bytes()))
    }

    /// The session of one conversation with an agent: whoever makes it after a crash makes the same. `generation`
    /// counts how often the conversation was begun anew.
    pub fn session(self, agent: &str, key: &str, generation: u32) -> SessionId {
        // Names of agents have no NUL, so that no two conversations are spelled alike.
        SessionId(Uuid::new_v5(&self.0, format!("{agent}\0{generation}\0{key}").as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_conversation_is_a_session_of_its_own_and_the_same_one_each_time() {
        let team = TeamId::now();
        let one = team.session("writer", "", 0);
        assert_eq!(team.session("writer", "", 0), one);
        for other in [
            team.session("writer", "", 1),
            team.session("writer", "x", 0),
            team.session("critic", "", 0),
            TeamId::now().session("writer", "", 0),
        ] {
            assert_ne!(other, one);
        }
        assert_ne!(team.session("a", "0", 0), team.session("a", "", 0));
    }

    #[test]
    fn a_keyed_message_has_the_same_id_each_time_and_another_in_another_session() {
        let (a, b) = (SessionId::now(), SessionId::now());
        assert_eq!(MessageId::of_key(a, "k"), MessageId::of_key(a, "k"));
        assert_ne!(MessageId::of_key(a, "k"), MessageId::of_key(b, "k"));
        assert_ne!(MessageId::of_key(a, "k"), MessageId::of_key(a, "k2"));
    }
}

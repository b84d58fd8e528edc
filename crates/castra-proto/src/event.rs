//! Events: the durable facts of a session, and the closed list of kinds that are castra's own.

use crate::{SessionId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::fmt;

/// One durable fact of a session.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Event {
    /// Position in the session, from 1, without gaps.
    pub seq: u64,
    pub at: Timestamp,
    pub session_id: SessionId,
    /// The number of the run it belongs to; 0 before the first.
    pub run: u32,
    /// The number of the turn it belongs to; 0 before the first.
    pub turn: u32,
    /// claude's own message type, or one of castra's kinds (`OwnKind`).
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub kind: Kind,
    /// For claude's kinds the original line, byte for byte.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub data: Box<RawValue>,
    /// Base64 of the bytes, only where a line was not JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<String>,
}

/// What an event is: claude's own type, or one of castra's.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Kind {
    Own(OwnKind),
    /// `assistant`, `user`, `result`, `system`, … as claude wrote it.
    Claude(Box<str>),
}

impl Kind {
    pub fn as_str(&self) -> &str {
        match self {
            Self::Own(own) => own.as_str(),
            Self::Claude(kind) => kind,
        }
    }

    /// A claude type that happens to bear the name of one of castra's kinds is `unknown`:
    /// nothing on claude's stdout may pass for a decision of castra's.
    pub fn of_claude(kind: &str) -> Self {
        match OwnKind::parse(kind) {
            Some(_) => Self::Own(OwnKind::Unknown),
            None => Self::Claude(kind.into()),
        }
    }

    pub fn parse(kind: &str) -> Self {
        OwnKind::parse(kind).map_or_else(|| Self::Claude(kind.into()), Self::Own)
    }

    pub fn is(&self, own: OwnKind) -> bool {
        *self == Self::Own(own)
    }
}

impl From<OwnKind> for Kind {
    fn from(own: OwnKind) -> Self {
        Self::Own(own)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Kind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Ok(Self::parse(&text))
    }
}

macro_rules! own_kinds {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// The kinds that are castra's own: a closed list (spec.md "Event kinds of castra's own").
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum OwnKind { $($(#[$doc])* $variant,)* }

        impl OwnKind {
            pub const ALL: &'static [OwnKind] = &[$(OwnKind::$variant,)*];

            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            pub fn parse(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

own_kinds! {
    /// A message was accepted and is on disk: `{message_id, text|content, if_busy}`.
    InputAccepted = "input_accepted",
    /// claude has it: `{message_id}`; also how a message ended that could not be: `{message_id, outcome}`.
    InputDelivered = "input_delivered",
    /// What waits: `{message_ids}`, after a message was queued or withdrawn.
    Queued = "queued",
    /// `{from, to, cause}` of the newest run, or of a flag.
    State = "state",
    /// Nothing was heard for `idle_after_s`.
    Idle = "idle",
    RequiresAction = "requires_action",
    PermissionRequested = "permission_requested",
    PermissionAnswered = "permission_answered",
    /// A control request sent to claude, and by whom.
    Control = "control",
    Stderr = "stderr",
    /// `{code, signal, cause, tail_lost, tree, …}`: a run ended or was lost.
    Exit = "exit",
    /// A limit was reached: `{limit, value}`.
    Limit = "limit",
    /// A run continues a conversation: `{claude_session_id, from}`.
    Resumed = "resumed",
    Attention = "attention",
    Browser = "browser",
    ClientMessage = "client_message",
    CallerMessage = "caller_message",
    Status = "status",
    Deliverable = "deliverable",
    Snapshot = "snapshot",
    /// Bytes that castra does not understand, kept.
    Unknown = "unknown",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_own_kind_reads_back_and_claude_cannot_speak_as_castra() {
        for own in OwnKind::ALL {
            assert_eq!(Kind::parse(own.as_str()), Kind::Own(*own));
            assert_eq!(Kind::of_claude(own.as_str()), Kind::Own(OwnKind::Unknown));
        }
        assert_eq!(Kind::of_claude("assistant"), Kind::Claude("assistant".into()));
    }

    #[test]
    fn data_keeps_its_bytes() {
        let line = r#"{"seq":1,"at":"2026-11-21T07:30:45.000100Z","session_id":"01928f6e-7b5a-7000-8000-000000000001","run":1,"turn":0,"kind":"assistant","data":{"b": 1.0,  "a":"\u00e9"}}"#;
        let event: Event = serde_json::from_str(line).unwrap();
        assert_eq!(event.data.get(), r#"{"b": 1.0,  "a":"\u00e9"}"#);
        assert_eq!(serde_json::to_string(&event).unwrap(), line);
    }
}

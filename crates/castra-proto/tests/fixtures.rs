//! Every wire type of the API has a committed fixture: a change of the wire shows up as a diff of a file.
//!
//! A fixture is a list of examples. A struct's first one has every field; an enum's have every variant.
//! Each is decoded and encoded again, and the bytes are the same.

// Helpers of tests, which clippy does not know for tests.
#![allow(clippy::unwrap_used)]

use castra_proto::api::*;
use castra_proto::permission::*;
use castra_proto::session::*;
use castra_proto::spec::*;
use castra_proto::task::*;
use castra_proto::team::*;
use castra_proto::{ErrorCode, Event, OwnKind, Problem, Session, SessionSpec};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// The modules whose types leave a process as JSON. Shim frames have fixtures and tests of their own.
const MODULES: [&str; 16] = [
    "api",
    "session",
    "spec",
    "permission",
    "event",
    "error",
    "task",
    "task/param",
    "task/event",
    "task/group",
    "team",
    "task/many",
    "task/schedule",
    "task/definition",
    "task/input",
    "task/hook",
];

type Again = fn(&str) -> Result<String, serde_json::Error>;

fn again<T: Serialize + DeserializeOwned>(text: &str) -> Result<String, serde_json::Error> {
    let examples: Vec<T> = serde_json::from_str(text)?;
    Ok(serde_json::to_string_pretty(&examples)? + "\n")
}

macro_rules! types {
    ($($name:ident $(<$inner:ty>)?,)*) => {
        const TYPES: &[(&str, Again)] = &[$((stringify!($name), again::<$name $(<$inner>)?>),)*];
    };
}

types! {
    Activity, Attempt, Backup, Behavior, Blob, CallerMessage, CancelTask, CancelTasks, CancelledTasks, Catalogue, Child, ChildRule, Completion, Control, ControlAnswer, CreateBlock, CreateTicket, CreateToken, CreatedToken, Cursor, Definition, DefinitionFault, Deliverable, ErrorCode, Event, Exit, ExitCause, FileWritten, Firing, FiringOutcome, Flags, Fork, Git, Group, Home, Hook, HookCall, HookExec, HookExecEnd, HookPoint, HookProgress, HookText, IfBusy, Input, InstallClaude, Keys, KnownDefinition, Launch, LaunchBlock, Level, Limits, LogLine, Message, MessageAccepted, MessageState, Missed, Mode, Offered, OnError, Order, Outcome, Overlap, Page<ServerEvent>, Param, ParamKind, PermissionAnswer, PermissionKind, PermissionMode, PermissionRequest, PermissionState, Priority, Problem, Progress, ProgressRule, Protocol, Reaped, Reason, ReasonCode, Resume, RunState, Sandbox, SandboxKind, SandboxMode, Schedule, SchedulePatch, ScheduleSpec, Scope, Screen, ScreenSize, SendMessage, ServerEvent, Session, SessionPatch, SessionSpec, SignIn, SignedIn, Source, Start, Task, TaskEvent, TaskEventKind, TaskSpec, TaskState, TaskTree, TerminalToken, Thinking, Ticket, Token, TranscriptInfo, Trouble, Tui, Turn, TurnResult, Uploaded, Webhook,
    AgentSpec, Answer, AnswerState, Answers, AskAgent, ClearTeam, Conversation, Fanout, FlowRun, Need, RouteAnswer, Routed, RunFlow, Step, StepRun, StopTeam, Team, TeamAgent, TeamSpec,
}

fn here() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn fixture(name: &str) -> String {
    let path = here().join("fixtures").join(format!("{name}.json"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A type as its source declares it: the wire names of its fields, or its number of variants.
#[derive(Debug)]
enum Declared {
    Struct(Vec<String>),
    Enum(usize),
    /// Made by a macro, or converted by hand.
    Elsewhere,
}

/// What is declared `pub` with `Serialize` in these modules. The declarations are as rustfmt writes them.
fn declared() -> BTreeMap<String, Declared> {
    let mut found = BTreeMap::new();
    for module in MODULES {
        let text = std::fs::read_to_string(here().join(format!("src/{module}.rs"))).unwrap();
        let (mut serialised, mut lines) = (false, text.lines());
        while let Some(line) = lines.next() {
            let plain = line.trim_start();
            if plain.starts_with("#[derive(") {
                serialised = plain.contains("Serialize,") || plain.contains("Serialize)");
            } else if let Some(item) = plain.strip_prefix("pub struct ").or(plain.strip_prefix("pub enum ")) {
                let name: String = item.chars().take_while(|c| c.is_alphanumeric()).collect();
                let body = || lines.clone().take_while(|line| *line != "}").collect::<Vec<_>>();
                if std::mem::take(&mut serialised) {
                    let declared = match plain {
                        _ if line != plain || !item.ends_with('{') => Declared::Elsewhere,
                        _ if plain.starts_with("pub struct") => Declared::Struct(fields(&body())),
                        _ => Declared::Enum(body().iter().filter(|line| is_variant(line)).count()),
                    };
                    found.insert(name, declared);
                }
            }
        }
    }
    found
}

fn fields(body: &[&str]) -> Vec<String> {
    let (mut names, mut rename, mut flat) = (Vec::new(), None, false);
    for line in body.iter().map(|line| line.trim()) {
        if let Some(at) = line.find("rename = \"") {
            rename = line[at + 10..].split('"').next().map(str::to_owned);
        }
        flat |= line.starts_with("#[serde(") && line.contains("flatten");
        if let Some((name, _)) = line.strip_prefix("pub ").and_then(|field| field.split_once(':')) {
            let name = rename.take().unwrap_or_else(|| name.to_owned());
            if !std::mem::take(&mut flat) {
                names.push(name);
            }
        }
    }
    names
}

fn is_variant(line: &str) -> bool {
    line.strip_prefix("    ").is_some_and(|name| name.starts_with(|c: char| c.is_ascii_uppercase()))
}

#[test]
fn every_wire_type_has_a_fixture_and_every_fixture_a_type() {
    let types: BTreeSet<&str> = TYPES.iter().map(|(name, _)| *name).collect();
    let declared = declared();
    assert_eq!(
        types,
        declared.keys().map(String::as_str).collect(),
        "types with Serialize, and the table here"
    );
    let files: BTreeSet<String> = (std::fs::read_dir(here().join("fixtures")).unwrap().flatten())
        .filter(|entry| entry.path().is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(files, types.iter().map(|name| format!("{name}.json")).collect());
}

#[test]
fn every_fixture_reads_and_is_written_the_same() {
    for (name, again) in TYPES {
        let text = fixture(name);
        match again(&text) {
            Ok(written) => assert_eq!(written, text, "{name}"),
            Err(error) => panic!("{name}: {error}"),
        }
    }
}

#[test]
fn every_field_and_every_variant_is_in_a_fixture() {
    for (name, declared) in declared() {
        let examples: Vec<Value> = serde_json::from_str(&fixture(&name)).unwrap();
        match declared {
            Declared::Struct(fields) => {
                assert!(!fields.is_empty() || name == "Page", "no fields were read of {name}");
                let missing: Vec<_> =
                    fields.iter().filter(|field| examples[0].get(field.as_str()).is_none()).collect();
                assert!(missing.is_empty(), "the first example of {name} lacks {missing:?}");
            }
            Declared::Enum(variants) => {
                let different: BTreeSet<String> = examples.iter().map(Value::to_string).collect();
                assert_eq!(different.len(), variants, "variants of {name}");
            }
            Declared::Elsewhere => {}
        }
    }
}

#[test]
fn closed_lists_are_whole() {
    let names = |name: &str| serde_json::from_str::<Vec<String>>(&fixture(name)).unwrap();
    assert_eq!(names("ErrorCode"), Vec::from_iter(ErrorCode::ALL.iter().map(|code| code.as_str())));
    assert_eq!(names("RunState"), Vec::from_iter(RunState::ALL.iter().map(|state| state.as_str())));
    assert_eq!(names("MessageState"), Vec::from_iter(MessageState::ALL.iter().map(|state| state.as_str())));
    assert_eq!(names("TaskState"), Vec::from_iter(TaskState::ALL.iter().map(|state| state.as_str())));
    assert_eq!(names("TaskEventKind"), Vec::from_iter(TaskEventKind::ALL.iter().map(|kind| kind.as_str())));
    assert_eq!(names("Scope"), Vec::from_iter(Scope::ALL.iter().map(|scope| scope.as_str())));
    assert_eq!(names("FiringOutcome"), Vec::from_iter(FiringOutcome::ALL.iter().map(|one| one.as_str())));
    let kinds: BTreeSet<String> = (serde_json::from_str::<Vec<Event>>(&fixture("Event")).unwrap().iter())
        .map(|event| event.kind.to_string())
        .collect();
    let missing: Vec<_> = OwnKind::ALL.iter().filter(|own| !kinds.contains(own.as_str())).collect();
    assert!(missing.is_empty(), "no example of an event {missing:?}");
}

/// What is set to its default is left out or written; either way it reads as nothing but defaults.
#[test]
fn requests_without_fields_are_their_defaults() {
    fn default<T: DeserializeOwned + Default + PartialEq + std::fmt::Debug>() {
        assert_eq!(serde_json::from_str::<T>("{}").unwrap(), T::default());
    }
    default::<SessionSpec>();
    default::<SendMessage>();
    default::<SessionPatch>();
    default::<Fork>();
    default::<Resume>();
    default::<InstallClaude>();
    default::<CreateTicket>();
    default::<Limits>();
    default::<Tui>();
    default::<TaskSpec>();
    default::<HookExec>();
    default::<HookProgress>();
    default::<HookText>();
    default::<CancelTask>();
    default::<TeamSpec>();
    default::<AgentSpec>();
    default::<Step>();
    default::<AskAgent>();
    default::<RouteAnswer>();
    default::<Fanout>();
    default::<RunFlow>();
    default::<ClearTeam>();
    default::<StopTeam>();
    default::<SchedulePatch>();
    default::<Definition>();
    default::<Launch>();
}

#[test]
fn requests_refuse_unknown_fields_by_name() {
    fn refuses<T: DeserializeOwned>(name: &str) {
        let mut example = serde_json::from_str::<Vec<Value>>(&fixture(name)).unwrap().swap_remove(0);
        assert!(serde_json::from_value::<T>(example.clone()).is_ok(), "{name}");
        example["surprise"] = Value::Null;
        let error =
            serde_json::from_value::<T>(example).err().unwrap_or_else(|| panic!("{name} took a surprise"));
        assert!(error.to_string().contains("unknown field `surprise`"), "{name}: {error}");
    }
    refuses::<Hook>("Hook");
    refuses::<HookExec>("HookExec");
    refuses::<SessionSpec>("SessionSpec");
    refuses::<SendMessage>("SendMessage");
    refuses::<SessionPatch>("SessionPatch");
    refuses::<Fork>("Fork");
    refuses::<Resume>("Resume");
    refuses::<Keys>("Keys");
    refuses::<PermissionAnswer>("PermissionAnswer");
    refuses::<CreateToken>("CreateToken");
    refuses::<CreateTicket>("CreateTicket");
    refuses::<SignIn>("SignIn");
    refuses::<InstallClaude>("InstallClaude");
    refuses::<Backup>("Backup");
    refuses::<TaskSpec>("TaskSpec");
    refuses::<CancelTask>("CancelTask");
    refuses::<CancelTasks>("CancelTasks");
    refuses::<CreateBlock>("CreateBlock");
    refuses::<ScheduleSpec>("ScheduleSpec");
    refuses::<SchedulePatch>("SchedulePatch");
    refuses::<Definition>("Definition");
    refuses::<Launch>("Launch");
    refuses::<Param>("Param");
    refuses::<TeamSpec>("TeamSpec");
    refuses::<AgentSpec>("AgentSpec");
    refuses::<Step>("Step");
    refuses::<AskAgent>("AskAgent");
    refuses::<RouteAnswer>("RouteAnswer");
    refuses::<Fanout>("Fanout");
    refuses::<RunFlow>("RunFlow");
    refuses::<ClearTeam>("ClearTeam");
    refuses::<StopTeam>("StopTeam");
}

//! The table of keywords: how each is spelled, read, explained, and which tool says the same. Refuses to read or write.

use super::{Enabled, Said};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a line may begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keyword {
    Status,
    Deliverable,
    Attention,
    Browser,
    ClientMessage,
    CallerMessage,
    Done,
    Error,
}

/// How what follows the word is read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    /// `WORD: [N% ]text`.
    Progress(fn(Option<u8>, String) -> Said),
    /// `WORD: text`, which is not empty.
    Text(fn(String) -> Said),
    /// `WORD: "url"`, of a web page; the quotes may be left out.
    Quoted(fn(String) -> Said),
    /// `WORD: name json`.
    Message(fn(String, Value) -> Said),
    /// `WORD` or `WORD: text`; ends the task.
    End(fn(Option<String>) -> Said),
}

/// A keyword, whole.
#[derive(Debug)]
pub struct Row {
    pub keyword: Keyword,
    /// As it stands in the log.
    pub word: &'static str,
    pub(super) form: Form,
    /// Its line, with what varies in angle brackets.
    pub shape: &'static str,
    /// A line to copy. `{deliverables}` stands for the folder's path.
    pub example: &'static str,
    /// What it is for, told to the agent.
    pub about: &'static str,
    /// The tool of the MCP server that says the same, and what the agent is told of it.
    pub tool: Option<(&'static str, &'static str)>,
}

/// Every keyword, in the order in which agents are told of them.
pub const TABLE: &[Row] = &[
    Row {
        keyword: Keyword::Status,
        word: "STATUS",
        form: Form::Progress(|percent, message| Said::Status { percent, message }),
        shape: "STATUS: <N>% <text>",
        example: "STATUS: 50% the parser works, its tests are next",
        about: "how far you are, for the people who wait. The percentage (0 to 100, a space after it) may be left out.",
        tool: Some((
            "report_status",
            "says how far you are: `message`, and `percent` (0 to 100) if you can tell.",
        )),
    },
    Row {
        keyword: Keyword::Deliverable,
        word: "DELIVERABLE",
        form: Form::Text(|path| Said::Deliverable { path }),
        shape: "DELIVERABLE: <path>",
        example: "DELIVERABLE: {deliverables}summary.md",
        about: "you hand over this file. It lies below `{deliverables}` and is final when you write the line; spaces in \
                the path need no quotes.",
        tool: Some((
            "deliver",
            "hands over a file below `{deliverables}`, final by then: `path`. Its result says whether it was accepted.",
        )),
    },
    Row {
        keyword: Keyword::Attention,
        word: "ATTENTION",
        form: Form::Text(|reason| Said::Attention { reason }),
        shape: "ATTENTION: <reason>",
        example: "ATTENTION: the licence of one dependency is unclear, please decide",
        about: "a person is needed; say what for.",
        tool: Some((
            "ask_user",
            "asks a person: `question`. Its result is the answer, or that nobody has answered yet.",
        )),
    },
    Row {
        keyword: Keyword::Browser,
        word: "BROWSER",
        form: Form::Quoted(|url| Said::Browser { url }),
        shape: "BROWSER: \"<url>\"",
        example: "BROWSER: \"https://example.com/login\"",
        about: "a person is to open this page in a browser of theirs, for a login say. There is none here.",
        tool: None,
    },
    Row {
        keyword: Keyword::ClientMessage,
        word: "CLIENT_MESSAGE",
        form: Form::Message(|name, data| Said::ClientMessage { name, data }),
        shape: "CLIENT_MESSAGE: <name> <json>",
        example: "CLIENT_MESSAGE: build-finished {\"artifact\":\"app.zip\"}",
        about: "a message to the program whose user started this task: a name without spaces, then valid JSON on the \
                same line.",
        tool: None,
    },
    Row {
        keyword: Keyword::CallerMessage,
        word: "CALLER_MESSAGE",
        form: Form::Message(|name, data| Said::CallerMessage { name, data }),
        shape: "CALLER_MESSAGE: <name> <json>",
        example: "CALLER_MESSAGE: tests-passed {\"suite\":\"unit\"}",
        about: "a message to the program that controls this task: a name without spaces, then valid JSON on the same \
                line. You may get a `System` message as its answer.",
        tool: Some((
            "message_caller",
            "sends a message to the program that controls this task: `name`, `data`. Its result is the answer.",
        )),
    },
    Row {
        keyword: Keyword::Done,
        word: "DONE",
        form: Form::End(|summary| Said::Done { summary }),
        shape: "DONE: <summary>",
        example: "DONE: the report is written, all tests pass",
        about: "the task is finished. `DONE` alone is enough; a summary of one line is welcome.",
        tool: Some(("done", "finishes the task: `summary`, if you like.")),
    },
    Row {
        keyword: Keyword::Error,
        word: "ERROR",
        form: Form::End(|message| Said::Error { message }),
        shape: "ERROR: <reason>",
        example: "ERROR: the sources cannot be read",
        about: "you cannot go on, and the task has failed. `ERROR` alone is enough; a reason of one line helps.",
        tool: Some(("fail", "gives the task up as failed: `reason`.")),
    },
];

impl Row {
    /// Whether the task has this keyword. One that it has not is neither read nor explained.
    pub fn enabled(&self, enabled: &Enabled) -> bool {
        match self.keyword {
            Keyword::Browser => enabled.browser,
            Keyword::ClientMessage => enabled.client_messages,
            Keyword::CallerMessage => enabled.caller_messages,
            Keyword::Status | Keyword::Deliverable | Keyword::Attention | Keyword::Done | Keyword::Error => {
                true
            }
        }
    }
}

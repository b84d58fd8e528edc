//! What a dialog asks, as a permission request; and the keys that answer it. Refuses to press a key whose effect the
//! screen does not say.

use super::screen::{Choice, Dialog, DialogKind};
use super::typing::{ENTER, type_line};
use crate::decode::preview;
use crate::permission::{Asked, input_hash, unusual};
use crate::tail::Call;
use castra_proto::permission::{Behavior, PermissionAnswer, PermissionKind, PermissionRequest};
use serde_json::{Value, json};
use thiserror::Error;

/// The dialog as the request that a stream session would have had. `id` is the caller's name for it.
///
/// The screen says that somebody is asked; what for is taken from the transcript: the call whose argument the dialog
/// shows, or the only one that is open. Where neither is certain, the input is the dialog's own text, and says so.
pub fn asked(id: &str, dialog: &Dialog, calls: &[Call]) -> Asked {
    let kind = match dialog.kind {
        DialogKind::Permission => PermissionKind::Tool,
        DialogKind::Question => PermissionKind::Question,
        DialogKind::Plan => PermissionKind::Plan,
        DialogKind::SwitchModel => PermissionKind::Dialog,
    };
    let (tool, tool_use_id, input, mut odd) = match matching(dialog, calls) {
        Some(call) => (call.tool.clone(), Some(call.id.clone()), call.input.clone(), unusual(&call.input)),
        None => {
            let shown = json!({"title": dialog.title, "text": dialog.body, "question": dialog.question});
            ("terminal".to_owned(), None, shown, unusual(&json!({"text": dialog.body})))
        }
    };
    if tool_use_id.is_none() && kind != PermissionKind::Dialog {
        odd.push("castra cannot tell which call this is; read the terminal".to_owned());
    }
    Asked {
        request_id: id.to_owned(),
        kind,
        tool,
        tool_use_id,
        description: Some(dialog.question.clone()),
        input_hash: input_hash(input.to_string().as_bytes()),
        input,
        unusual: odd,
        suggestions: Vec::new(),
    }
}

/// A screen that nobody knows, as a request that only somebody at the keyboard can answer.
pub fn unknown_screen<R: AsRef<str>>(id: &str, rows: &[R], title: &str) -> Asked {
    let mut rows: Vec<&str> = rows.iter().map(|row| row.as_ref().trim_end()).collect();
    rows.truncate(rows.iter().rposition(|row| !row.is_empty()).map_or(0, |last| last + 1));
    let input = json!({"screen": rows, "title": title});
    Asked {
        request_id: id.to_owned(),
        kind: PermissionKind::Dialog,
        tool: "terminal".to_owned(),
        tool_use_id: None,
        description: Some("claude shows a screen that castra does not know".to_owned()),
        input_hash: input_hash(input.to_string().as_bytes()),
        input,
        unusual: vec!["castra presses no key here; attach to the session and answer there".to_owned()],
        suggestions: Vec::new(),
    }
}

/// Whether a request is one of [`unknown_screen`].
pub fn is_unknown_screen(request: &PermissionRequest) -> bool {
    request.kind == PermissionKind::Dialog
        && request.tool == "terminal"
        && request.input.get("screen").is_some()
}

fn matching<'c>(dialog: &Dialog, calls: &'c [Call]) -> Option<&'c Call> {
    let of_kind = |call: &&Call| match dialog.kind {
        DialogKind::Question => call.tool == "AskUserQuestion",
        DialogKind::Plan => call.tool == "ExitPlanMode",
        DialogKind::SwitchModel => false,
        // An agent's call is open while the agent asks for its own.
        DialogKind::Permission => {
            !matches!(call.tool.as_str(), "AskUserQuestion" | "ExitPlanMode" | "Agent" | "Task")
        }
    };
    let candidates: Vec<&Call> = calls.iter().filter(of_kind).collect();
    let shown = squeeze(&format!("{} {} {}", dialog.title, dialog.body, dialog.question));
    let mut shown_ones = candidates.iter().filter(|call| shows(&shown, &call.input));
    match (shown_ones.next(), shown_ones.next(), candidates.as_slice()) {
        (Some(only), None, _) => Some(only),
        // Two equal calls, one after the other: the first is asked first.
        (Some(first), Some(second), _) if first.input == second.input => Some(first),
        (None, None, [only]) => Some(only),
        _ => None,
    }
}

/// The dialog wraps what it shows, and shows paths from the folder.
fn shows(shown: &str, input: &Value) -> bool {
    let main = preview(input);
    let main = squeeze(main.trim_end_matches('…'));
    let name = main.rsplit('/').next().unwrap_or_default();
    let path = input.get("file_path").or_else(|| input.get("notebook_path")).is_some();
    !main.is_empty() && (shown.contains(&main) || (path && !name.is_empty() && shown.contains(name)))
}

fn squeeze(text: &str) -> String {
    text.chars().filter(|character| !character.is_whitespace()).collect()
}

/// What to write, and what the screen must show before the next step. None of it is to be written twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub bytes: Vec<u8>,
    pub then: Expect,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// This dialog with the cursor on the option of this number.
    Selected(u8),
    /// The same, and its label has become a text field.
    Field(u8),
    /// The dialog is gone.
    Gone,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AnswerError {
    #[error("a terminal's dialog cannot be answered with `{field}`; attach to the session, or leave it out")]
    NotByKeys { field: &'static str },
    #[error("the dialog has no option that only says {wanted}; attach to the session and answer there")]
    NoOption { wanted: &'static str },
    #[error("this is a question with answers of its own; give one of its labels as updated_input.answers")]
    NeedsAnswer,
}

/// What claude reads where nobody said why.
const DENIED: &str = "The user does not want this to be done.";

/// The steps that answer the dialog.
///
/// Allow is the option that says `Yes` and nothing more: the others also change rules or the mode. Deny with `interrupt`
/// is Esc, which ends the turn; without, it is the option `No` with its message typed into it, since only that lets
/// the turn go on (both measured on both versions).
pub fn answer(dialog: &Dialog, answer: &PermissionAnswer) -> Result<Vec<Step>, AnswerError> {
    for (field, set) in
        [("updated_permissions", answer.updated_permissions.is_some()), ("remember", answer.remember)]
    {
        if set {
            return Err(AnswerError::NotByKeys { field });
        }
    }
    match (answer.behavior, dialog.kind) {
        (Behavior::Allow, DialogKind::Question) => choose(dialog, answer.updated_input.as_ref()),
        (Behavior::Allow, _) if answer.updated_input.is_some() => {
            Err(AnswerError::NotByKeys { field: "updated_input" })
        }
        (Behavior::Allow, DialogKind::Plan) => {
            let to_default =
                |label: &str| label == "Yes" || label.starts_with("Yes, and switch to default (");
            press(dialog, "yes", to_default)
        }
        (Behavior::Allow, DialogKind::SwitchModel) => {
            press(dialog, "yes", |label| label.starts_with("Yes, switch to "))
        }
        (Behavior::Allow, DialogKind::Permission) => press(dialog, "yes", |label| label == "Yes"),
        (Behavior::Deny, DialogKind::Permission) if !answer.interrupt => {
            deny(dialog, answer.message.as_deref().unwrap_or(DENIED))
        }
        (Behavior::Deny, _) => Ok(vec![Step { bytes: vec![0x1b], then: Expect::Gone }]),
    }
}

/// A digit chooses at once.
fn press(dialog: &Dialog, wanted: &'static str, is: impl Fn(&str) -> bool) -> Result<Vec<Step>, AnswerError> {
    let mut found = dialog.options.iter().filter(|option| is(&option.label));
    match (found.next(), found.next()) {
        (Some(option), None) => Ok(vec![Step { bytes: vec![b'0' + option.number], then: Expect::Gone }]),
        _ => Err(AnswerError::NoOption { wanted }),
    }
}

fn choose(dialog: &Dialog, input: Option<&Value>) -> Result<Vec<Step>, AnswerError> {
    let answers = input.and_then(|input| input.get("answers")).and_then(Value::as_object);
    let label = answers.and_then(|answers| answers.values().next()).and_then(Value::as_str);
    // Several questions have several screens; one answer is what a key can give.
    let label = label
        .filter(|_| answers.is_some_and(|answers| answers.len() == 1))
        .ok_or(AnswerError::NeedsAnswer)?;
    let is = |option: &str| {
        let described =
            option.strip_prefix(label).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '));
        described && !matches!(option, "Type something." | "Chat about this")
    };
    press(dialog, "that answer", is)
}

fn deny(dialog: &Dialog, message: &str) -> Result<Vec<Step>, AnswerError> {
    let no =
        dialog.options.iter().find(|option| option.label == "No" || option.label.starts_with("No, and tell"));
    let no = no.ok_or(AnswerError::NoOption { wanted: "no" })?.number;
    let at = dialog.options.iter().find(|option| option.selected).map_or(1, |option: &Choice| option.number);
    let mut steps: Vec<Step> =
        (at + 1..=no).map(|next| Step { bytes: b"\x1b[B".to_vec(), then: Expect::Selected(next) }).collect();
    steps.extend((no..at).rev().map(|next| Step { bytes: b"\x1b[A".to_vec(), then: Expect::Selected(next) }));
    steps.push(Step { bytes: b"\t".to_vec(), then: Expect::Field(no) });
    steps.push(Step { bytes: type_line(message), then: Expect::Selected(no) });
    steps.push(Step { bytes: ENTER.to_vec(), then: Expect::Gone });
    Ok(steps)
}

#[cfg(test)]
mod tests;

//! A conversation's first look, for lists.

use super::{is_main, prompt, records};
use crate::decode::{is_synthetic, one_line};
use crate::field::{items, string, text};
use serde_json::Value;

/// What a list shows of a conversation; each text on one line, at most 200 characters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preview {
    pub session_id: Option<String>,
    /// The user's own, else the one that claude made up.
    pub title: Option<String>,
    pub cwd: Option<String>,
    pub first_input: Option<String>,
    pub last_input: Option<String>,
    pub last_output: Option<String>,
}

pub fn preview(transcript: &[u8]) -> Preview {
    let mut preview = Preview::default();
    let (mut given, mut made) = (None, None);
    for record in records(transcript) {
        preview.session_id = string(&record, "sessionId").or(preview.session_id);
        preview.cwd = string(&record, "cwd").or(preview.cwd);
        match text(&record, "type") {
            Some("custom-title") => given = string(&record, "customTitle").or(given),
            Some("ai-title") => made = string(&record, "aiTitle").or(made),
            Some("summary") => made = string(&record, "summary").or(made),
            Some("assistant") if is_main(&record) && !is_synthetic(&record) => {
                preview.last_output = spoken(&record).or(preview.last_output);
            }
            _ => {
                if let Some(said) =
                    prompt(&record).map(|said| one_line(&said)).filter(|said| !said.is_empty())
                {
                    preview.first_input.get_or_insert_with(|| said.clone());
                    preview.last_input = Some(said);
                }
            }
        }
    }
    preview.title = given.or(made);
    preview
}

fn spoken(record: &Value) -> Option<String> {
    let blocks = items(&record["message"], "content");
    let texts = blocks.iter().filter(|block| text(block, "type") == Some("text"));
    texts.filter_map(|block| text(block, "text")).next_back().map(one_line).filter(|line| !line.is_empty())
}

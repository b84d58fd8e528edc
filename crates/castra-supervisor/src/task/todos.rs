//! The agent's own list of things to do, as far as it can be told from its calls. Pure.
//!
//! Source of the tools: claude 2.1.197 and 2.1.329, the `tools` of `system/init` (`TaskCreate`, `TaskUpdate`), and earlier ones
//! (`TodoWrite`).

use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Todos {
    items: Vec<Item>,
    /// Numbers that `TaskCreate` has given out.
    created: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Item {
    id: String,
    text: String,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Open,
    Begun,
    Done,
}

impl State {
    fn of(status: &str) -> Self {
        match status {
            "completed" => Self::Done,
            "in_progress" => Self::Begun,
            _ => Self::Open,
        }
    }
}

impl Todos {
    /// Takes what claude says. True: the list is another one now.
    pub(crate) fn take(&mut self, assistant: &Value) -> bool {
        // Agents of the agent have lists of their own.
        if assistant["parent_tool_use_id"].is_string() {
            return false;
        }
        let before = self.clone();
        for call in assistant["message"]["content"].as_array().into_iter().flatten() {
            if call["type"] == "tool_use" {
                self.call(call["name"].as_str().unwrap_or_default(), &call["input"]);
            }
        }
        *self != before
    }

    fn call(&mut self, tool: &str, input: &Value) {
        let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
        match tool {
            "TodoWrite" => {
                let todos = input["todos"].as_array().into_iter().flatten().enumerate();
                let item = |(n, todo): (usize, &Value)| Item {
                    id: n.to_string(),
                    text: text(todo, "content"),
                    state: State::of(todo["status"].as_str().unwrap_or_default()),
                };
                self.items = todos.map(item).collect();
            }
            "TaskCreate" => {
                self.created += 1;
                let id = self.created.to_string();
                self.items.push(Item { id, text: text(input, "subject"), state: State::Open });
            }
            "TaskUpdate" => {
                let id = text(input, "taskId");
                if input["status"] == "deleted" {
                    self.items.retain(|item| item.id != id);
                } else if let Some(item) = self.items.iter_mut().find(|item| item.id == id) {
                    if let Some(status) = input["status"].as_str() {
                        item.state = State::of(status);
                    }
                    if let Some(subject) = input["subject"].as_str() {
                        item.text = subject.to_owned();
                    }
                }
            }
            _ => {}
        }
    }

    /// How much of it is done, in percent, and a sentence for people. None: there is no list.
    pub(crate) fn progress(&self) -> Option<(u8, String)> {
        let (all, done) =
            (self.items.len(), self.items.iter().filter(|item| item.state == State::Done).count());
        let percent = u8::try_from((100 * done).checked_div(all)?).ok()?;
        let now = self.items.iter().find(|item| item.state == State::Begun);
        let now = now.map(|item| format!(": {}", item.text)).unwrap_or_default();
        Some((percent, format!("{done} of {all} done{now}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said(calls: &[(&str, Value)]) -> Value {
        let blocks: Vec<Value> = calls
            .iter()
            .map(|(name, input)| json!({"type": "tool_use", "name": name, "input": input}))
            .collect();
        json!({"parent_tool_use_id": null, "message": {"content": blocks}})
    }

    #[test]
    fn the_list_is_followed_by_its_calls() {
        let mut todos = Todos::default();
        assert_eq!(todos.progress(), None);
        for (calls, changed, percent, sentence) in [
            (
                said(&[("TaskCreate", json!({"subject": "a"})), ("TaskCreate", json!({"subject": "b"}))]),
                true,
                0,
                "0 of 2 done",
            ),
            (
                said(&[("TaskUpdate", json!({"taskId": "1", "status": "in_progress"}))]),
                true,
                0,
                "0 of 2 done: a",
            ),
            (said(&[("Bash", json!({"command": "x"}))]), false, 0, "0 of 2 done: a"),
            (
                said(&[
                    ("TaskUpdate", json!({"taskId": "1", "status": "completed"})),
                    ("TaskUpdate", json!({"taskId": "2", "status": "in_progress", "subject": "c"})),
                ]),
                true,
                50,
                "1 of 2 done: c",
            ),
            (
                said(&[("TaskUpdate", json!({"taskId": "9", "status": "completed"}))]),
                false,
                50,
                "1 of 2 done: c",
            ),
            (said(&[("TaskUpdate", json!({"taskId": "2", "status": "deleted"}))]), true, 100, "1 of 1 done"),
            (
                said(&[(
                    "TodoWrite",
                    json!({"todos": [
                        {"content": "x", "status": "completed"},
                        {"content": "y", "status": "in_progress"},
                        {"content": "z", "status": "pending"},
                    ]}),
                )]),
                true,
                33,
                "1 of 3 done: y",
            ),
        ] {
            assert_eq!(todos.take(&calls), changed, "{calls}");
            assert_eq!(todos.progress(), Some((percent, sentence.to_owned())), "{calls}");
        }
        let mut of_another = said(&[("TaskCreate", json!({"subject": "d"}))]);
        of_another["parent_tool_use_id"] = "toolu_1".into();
        assert!(!todos.take(&of_another));
    }
}

//! The MCP server that castra is to the agent of a task, over claude's own control channel: no process, no port and no
//! file that a tool could write to (facts/claude-cli.md §3, `mcp_message`). Refuses to draw conclusions: what the agent
//! reports becomes the same events as what it writes to its log.

use super::actor::Actor;
use super::coordinate::event_of;
use super::view::Owed;
use crate::Result;
use crate::task::protocol::text::{MCP_SERVER, tool_rows};
use crate::task::protocol::{Enabled, Said};
use castra_claude::fact::Fact;
use castra_claude::input;
use castra_claude::permission::Asked;
use castra_proto::permission::{Behavior, PermissionAnswer, PermissionKind};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// Of the protocol's versions the one that is spoken to a client that names none.
const PROTOCOL_VERSION: &str = "2025-06-18";
/// JSON-RPC: <https://www.jsonrpc.org/specification#error_object>.
const METHOD_NOT_FOUND: i64 = -32601;
const INVALID_PARAMS: i64 = -32602;

/// A call whose result is still to come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Call {
    /// Of claude's control request.
    pub request_id: String,
    /// Of the JSON-RPC request in it.
    pub id: Value,
}

impl Call {
    /// The answer to claude's control request.
    pub(crate) fn result(&self, text: &str, is_error: bool) -> Value {
        answer(&self.id, json!({"result": content(text, is_error)}))
    }
}

/// What a call of a tool comes to.
#[derive(Debug, PartialEq)]
enum Called {
    /// Told at once.
    Said(Said, &'static str),
    /// The file is looked at first.
    Deliver {
        path: String,
    },
    /// Somebody is asked first.
    Message {
        name: String,
        data: Value,
    },
    Ask {
        question: String,
    },
    Wrong(String),
}

impl Actor<'_> {
    /// The server that claude is told of.
    pub(crate) fn own_server(&self) -> Option<String> {
        let task = self.view.coordination.as_ref()?;
        task.mcp.then(|| MCP_SERVER.to_owned())
    }

    /// Answers what claude asks of its MCP server; or does what only castra can say no to.
    pub(crate) fn host_request(&mut self, request_id: String, subtype: String, request: &Value) {
        let response = match (subtype.as_str(), &self.view.coordination) {
            ("mcp_message", Some(task)) if task.mcp && request["server_name"] == MCP_SERVER => {
                let (enabled, ended) = (task.enabled, task.has_ended());
                match self.serve(&request_id, &request["message"], &enabled, ended) {
                    Some(response) => Some(response),
                    // Somebody else has to say.
                    None => return,
                }
            }
            _ => None,
        };
        self.view.declines.push(Owed { request_id, subtype, response });
    }

    /// What castra owes claude, as far as it is not on its way.
    pub(crate) async fn write_owed(&mut self) -> Result<()> {
        for owed in self.view.declines.clone() {
            let id = self.owed_id(&owed.request_id);
            if !self.commands.is_writing(id) {
                let line = match owed.response {
                    Some(response) => input::success(&owed.request_id, response),
                    None => input::decline(&owed.request_id, &owed.subtype),
                };
                self.write(id, &line).await?;
            }
        }
        Ok(())
    }

    pub(crate) fn owed_journalled(&mut self, id: Uuid) {
        let owed = std::mem::take(&mut self.view.declines);
        self.view.declines = owed.into_iter().filter(|owed| self.owed_id(&owed.request_id) != id).collect();
    }

    fn owed_id(&self, request_id: &str) -> Uuid {
        Uuid::new_v5(&self.run.id.0, request_id.as_bytes())
    }

    fn serve(&mut self, request_id: &str, message: &Value, enabled: &Enabled, ended: bool) -> Option<Value> {
        let id = &message["id"];
        let result = |result: Value| Some(answer(id, json!({"result": result})));
        match message["method"].as_str().unwrap_or_default() {
            "initialize" => result(json!({
                "protocolVersion": message["params"]["protocolVersion"].as_str().unwrap_or(PROTOCOL_VERSION),
                "capabilities": {"tools": {}},
                "serverInfo": {"name": MCP_SERVER, "version": env!("CARGO_PKG_VERSION")},
            })),
            "ping" => result(json!({})),
            "tools/list" => result(json!({"tools": tools(enabled)})),
            "tools/call" => {
                let params = &message["params"];
                let call = Call { request_id: request_id.to_owned(), id: id.clone() };
                if ended {
                    return Some(call.result("the task is over already; stop here", true));
                }
                let name = params["name"].as_str().unwrap_or_default();
                match called(name, &params["arguments"], enabled) {
                    Called::Said(said, told) => {
                        self.reported(said, None);
                        Some(call.result(told, false))
                    }
                    Called::Deliver { path } => {
                        self.reported(Said::Deliverable { path }, Some(request_id));
                        self.view.coordination.as_mut()?.calls.push(call);
                        None
                    }
                    Called::Message { name, data } => {
                        self.reported(Said::CallerMessage { name, data }, Some(request_id));
                        self.view.coordination.as_mut()?.calls.push(call);
                        None
                    }
                    Called::Ask { question } => {
                        self.view.coordination.as_mut()?.calls.push(call);
                        self.ask_person(request_id, question);
                        None
                    }
                    Called::Wrong(why) => {
                        Some(answer(id, json!({"error": {"code": INVALID_PARAMS, "message": why}})))
                    }
                }
            }
            method if method.starts_with("notifications/") => {
                Some(json!({"mcp_response": {"jsonrpc": "2.0", "result": {}}}))
            }
            method => {
                let why = format!("castra's server has no method {method:?}");
                Some(answer(id, json!({"error": {"code": METHOD_NOT_FOUND, "message": why}})))
            }
        }
    }

    /// As if it stood in the log; `call` waits for what comes of it.
    fn reported(&mut self, said: Said, call: Option<&str>) {
        let (kind, mut data) = event_of(said);
        if let Some(call) = call {
            data["call"] = call.into();
        }
        let event = self.view.event(self.at(), kind, &data);
        self.added.events.push(event);
    }

    fn ask_person(&mut self, request_id: &str, question: String) {
        let input = json!({"question": question});
        let asked = Asked {
            request_id: request_id.to_owned(),
            kind: PermissionKind::Question,
            tool: "ask_user".into(),
            tool_use_id: None,
            description: Some(question),
            input_hash: format!("{:x}", Hex(Sha256::digest(input.to_string()).into())),
            input,
            unusual: Vec::new(),
            suggestions: Vec::new(),
        };
        let at = self.at();
        self.view.apply_fact(Fact::PermissionAsked(Box::new(asked)), at, &self.given, &mut self.added);
    }

    /// The answer to a question that came as a call, as the call's result.
    pub(crate) fn call_answered(&self, request_id: &str, answer: &PermissionAnswer) -> Option<Vec<u8>> {
        let call =
            self.view.coordination.as_ref()?.calls.iter().find(|call| call.request_id == request_id)?;
        let given = answer.updated_input.as_ref().and_then(|input| input["answer"].as_str());
        let text = match (answer.behavior, given.or(answer.message.as_deref())) {
            (Behavior::Allow, Some(text)) => text.to_owned(),
            (Behavior::Allow, None) => "yes".to_owned(),
            (Behavior::Deny, Some(text)) => format!("the person declines: {text}"),
            (Behavior::Deny, None) => "the person declines to answer".to_owned(),
        };
        let response = call.result(&text, answer.behavior == Behavior::Deny);
        Some(input::success(request_id, response))
    }

    /// What a call has come to, by whoever looked into it.
    pub(crate) fn call_result(&self, request_id: &str, result: &Value) -> Option<Vec<u8>> {
        let call =
            self.view.coordination.as_ref()?.calls.iter().find(|call| call.request_id == request_id)?;
        let (text, is_error) = (result["text"].as_str()?, result["is_error"].as_bool()?);
        Some(input::success(request_id, call.result(text, is_error)))
    }

    /// Its result is with claude.
    pub(crate) fn call_is_over(&mut self, request_id: &str) {
        if let Some(task) = &mut self.view.coordination {
            task.calls.retain(|call| call.request_id != request_id);
        }
    }
}

struct Hex([u8; 32]);

impl std::fmt::LowerHex for Hex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn answer(id: &Value, mut body: Value) -> Value {
    body["jsonrpc"] = "2.0".into();
    body["id"] = id.clone();
    json!({"mcp_response": body})
}

fn content(text: &str, is_error: bool) -> Value {
    json!({"content": [{"type": "text", "text": text}], "isError": is_error})
}

/// What `tools/list` says.
fn tools(enabled: &Enabled) -> Vec<Value> {
    tool_rows(enabled)
        .map(|(_, name, about)| json!({"name": name, "description": about, "inputSchema": schema(name)}))
        .collect()
}

fn schema(tool: &str) -> Value {
    let text = |what: &str| json!({"type": "string", "description": what});
    let (properties, required) = match tool {
        "report_status" => (
            json!({
                "message": text("what is done, in a sentence"),
                "percent": {"type": "integer", "minimum": 0, "maximum": 100},
            }),
            json!(["message"]),
        ),
        "deliver" => {
            (json!({"path": text("the file's path, below the folder for deliverables")}), json!(["path"]))
        }
        "done" => (json!({"summary": text("what came of it")}), json!([])),
        "fail" => (json!({"reason": text("why it cannot be done")}), json!([])),
        "ask_user" => (json!({"question": text("what you need to know")}), json!(["question"])),
        _ => (json!({"name": text("without spaces"), "data": {}}), json!(["name"])),
    };
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

fn called(tool: &str, arguments: &Value, enabled: &Enabled) -> Called {
    let text = |field: &str| arguments[field].as_str().map(str::trim).filter(|text| !text.is_empty());
    let need = |field: &str| text(field).map(str::to_owned).ok_or(format!("`{field}` must be text"));
    if !tool_rows(enabled).any(|(_, name, _)| name == tool) {
        return Called::Wrong(format!("castra's server has no tool {tool:?}"));
    }
    let call = || -> Result<Called, String> {
        Ok(match tool {
            "report_status" => {
                let percent = match &arguments["percent"] {
                    Value::Null => None,
                    given => {
                        let percent = given.as_f64().ok_or("`percent` must be a number")?;
                        Some(percent.clamp(0.0, 100.0) as u8)
                    }
                };
                Called::Said(Said::Status { percent, message: need("message")? }, "recorded")
            }
            "deliver" => Called::Deliver { path: need("path")? },
            "done" => {
                let summary = text("summary").map(str::to_owned);
                Called::Said(Said::Done { summary }, "recorded: the task is done. Stop here.")
            }
            "fail" => {
                let message = text("reason").map(str::to_owned);
                Called::Said(Said::Error { message }, "recorded: the task has failed. Stop here.")
            }
            "ask_user" => Called::Ask { question: need("question")? },
            _ => {
                let data = arguments.get("data").cloned().unwrap_or_default();
                Called::Message { name: need("name")?, data }
            }
        })
    };
    call().unwrap_or_else(Called::Wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tool_says_what_its_keyword_says() {
        let enabled = Enabled { caller_messages: true, ..Enabled::default() };
        let said = |said, told| Called::Said(said, told);
        for (tool, arguments, expected) in [
            (
                "report_status",
                json!({"message": " half ", "percent": 50}),
                said(Said::Status { percent: Some(50), message: "half".into() }, "recorded"),
            ),
            (
                "report_status",
                json!({"message": "x", "percent": 250}),
                said(Said::Status { percent: Some(100), message: "x".into() }, "recorded"),
            ),
            ("report_status", json!({"percent": 5}), Called::Wrong("`message` must be text".into())),
            (
                "report_status",
                json!({"message": "x", "percent": "five"}),
                Called::Wrong("`percent` must be a number".into()),
            ),
            ("deliver", json!({"path": "deliverables/a"}), Called::Deliver { path: "deliverables/a".into() }),
            ("deliver", json!({}), Called::Wrong("`path` must be text".into())),
            ("done", json!({}), said(Said::Done { summary: None }, "recorded: the task is done. Stop here.")),
            (
                "fail",
                json!({"reason": "no"}),
                said(Said::Error { message: Some("no".into()) }, "recorded: the task has failed. Stop here."),
            ),
            ("ask_user", json!({"question": "why?"}), Called::Ask { question: "why?".into() }),
            (
                "message_caller",
                json!({"name": "n", "data": [1]}),
                Called::Message { name: "n".into(), data: json!([1]) },
            ),
            ("rm", json!({}), Called::Wrong("castra's server has no tool \"rm\"".into())),
        ] {
            assert_eq!(called(tool, &arguments, &enabled), expected, "{tool} {arguments}");
        }
        let off = called("message_caller", &json!({"name": "n"}), &Enabled::default());
        assert_eq!(off, Called::Wrong("castra's server has no tool \"message_caller\"".into()));
    }

    #[test]
    fn every_tool_that_is_listed_can_be_called() {
        let enabled = Enabled { caller_messages: true, ..Enabled::default() };
        for tool in tools(&enabled) {
            let name = tool["name"].as_str().unwrap();
            let required = tool["inputSchema"]["required"].as_array().unwrap();
            let arguments: serde_json::Map<String, Value> =
                required.iter().map(|field| (field.as_str().unwrap().to_owned(), json!("x"))).collect();
            let called = called(name, &arguments.into(), &enabled);
            assert!(!matches!(called, Called::Wrong(_)), "{name}: {called:?}");
        }
    }
}

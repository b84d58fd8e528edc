//! Tables: which call a dialog asks about, and the keys of every answer.

use super::*;

fn choice(number: u8, label: &str, selected: bool) -> Choice {
    Choice { number, label: label.into(), selected }
}

/// As both CLIs show it for `touch a.txt`.
fn bash(selected: u8) -> Dialog {
    let options = ["Yes", "Yes, and always allow access to work/ from this project", "No"];
    let options =
        options.iter().zip(1..).map(|(label, number)| choice(number, label, number == selected)).collect();
    Dialog {
        kind: DialogKind::Permission,
        title: "Bash command".into(),
        body: "touch a.txt\nMake a file".into(),
        question: "Do you want to proceed?".into(),
        options,
    }
}

fn plan() -> Dialog {
    let options = vec![
        choice(1, "Yes, and switch to default (ask each time) for this session", true),
        choice(2, "No", false),
    ];
    Dialog {
        kind: DialogKind::Plan,
        title: "Exit plan mode?".into(),
        body: String::new(),
        question: "x".into(),
        options,
    }
}

fn question() -> Dialog {
    let labels = ["A the first", "B the second", "Type something.", "Chat about this"];
    let options = labels.iter().zip(1..).map(|(label, number)| choice(number, label, number == 1)).collect();
    Dialog {
        kind: DialogKind::Question,
        title: "☐ Choice".into(),
        body: String::new(),
        question: "Which?".into(),
        options,
    }
}

fn call(id: &str, tool: &str, input: Value) -> Call {
    Call { id: id.into(), tool: tool.into(), input, agent: None }
}

fn says(value: Value) -> PermissionAnswer {
    serde_json::from_value(value).unwrap()
}

fn step(bytes: &[u8], then: Expect) -> Step {
    Step { bytes: bytes.to_vec(), then }
}

#[test]
fn a_dialog_is_about_the_call_that_it_shows() {
    let a = call("a", "Bash", json!({"command": "touch a.txt"}));
    let b = call("b", "Bash", json!({"command": "touch b.txt"}));
    let agent = call("g", "Agent", json!({"prompt": "touch"}));
    for (calls, tool, id) in [
        (vec![a.clone()], "Bash", Some("a")),
        (vec![b.clone(), a.clone()], "Bash", Some("a")),
        (vec![agent.clone(), a.clone()], "Bash", Some("a")),
        (vec![a.clone(), Call { id: "a2".into(), ..a.clone() }], "Bash", Some("a")),
        // The only one that is open, though the dialog words it otherwise.
        (vec![b.clone()], "Bash", Some("b")),
        (vec![agent], "terminal", None),
        (vec![b.clone(), Call { id: "b2".into(), ..b }], "terminal", None),
        (vec![], "terminal", None),
    ] {
        let asked = asked("r", &bash(1), &calls);
        assert_eq!((asked.tool.as_str(), asked.tool_use_id.as_deref()), (tool, id), "{calls:?}");
        assert_eq!(asked.unusual.is_empty(), id.is_some());
        assert_eq!((asked.request_id.as_str(), asked.kind), ("r", PermissionKind::Tool));
    }
    let shown = asked("r", &bash(1), &[]).input;
    assert_eq!(shown["text"], "touch a.txt\nMake a file");
    let write = call("w", "Write", json!({"file_path": "/long/way/a.txt", "content": "x"}));
    let other = call("e", "Edit", json!({"file_path": "/long/way/b.txt"}));
    let dialog = Dialog { title: "Create file".into(), body: "a.txt\n1 x".into(), ..bash(1) };
    assert_eq!(asked("r", &dialog, &[other, write]).tool_use_id.as_deref(), Some("w"));
    let leave = call("p", "ExitPlanMode", json!({"plan": "1. Do it."}));
    let asked = asked("r", &plan(), &[a, leave]);
    assert_eq!((asked.kind, asked.input), (PermissionKind::Plan, json!({"plan": "1. Do it."})));
}

#[test]
fn every_answer_has_its_keys() {
    let one = |key: &[u8]| Ok(vec![step(key, Expect::Gone)]);
    let message = b"\x1b[200~another name\x1b[201~";
    let amended = |moves: &[(&[u8], u8)]| {
        let mut steps: Vec<Step> = moves.iter().map(|(key, to)| step(key, Expect::Selected(*to))).collect();
        steps.extend([
            step(b"\t", Expect::Field(3)),
            step(message, Expect::Selected(3)),
            step(b"\r", Expect::Gone),
        ]);
        Ok(steps)
    };
    let deny = json!({"behavior": "deny", "message": "another\nname"});
    let auto =
        Dialog { options: vec![choice(1, "Yes, and use auto mode", true), choice(2, "No", false)], ..plan() };
    let b = json!({"behavior": "allow", "updated_input": {"answers": {"Which?": "B"}}});
    let nobody = json!({"behavior": "allow", "updated_input": {"answers": {"Which?": "C"}}});
    let two = json!({"behavior": "allow", "updated_input": {"answers": {"Which?": "B", "And?": "A"}}});
    for (dialog, given, keys) in [
        (bash(1), json!({"behavior": "allow"}), one(b"1")),
        (bash(3), json!({"behavior": "allow"}), one(b"1")),
        (bash(1), deny.clone(), amended(&[(b"\x1b[B", 2), (b"\x1b[B", 3)])),
        (bash(3), deny.clone(), amended(&[])),
        (bash(1), json!({"behavior": "deny", "interrupt": true}), one(b"\x1b")),
        (plan(), json!({"behavior": "allow"}), one(b"1")),
        (plan(), deny.clone(), one(b"\x1b")),
        (auto, json!({"behavior": "allow"}), Err(AnswerError::NoOption { wanted: "yes" })),
        (question(), b, one(b"2")),
        (question(), json!({"behavior": "allow"}), Err(AnswerError::NeedsAnswer)),
        (question(), two, Err(AnswerError::NeedsAnswer)),
        (question(), nobody, Err(AnswerError::NoOption { wanted: "that answer" })),
        (question(), deny, one(b"\x1b")),
        (
            bash(1),
            json!({"behavior": "allow", "updated_input": {"command": "ls"}}),
            Err(AnswerError::NotByKeys { field: "updated_input" }),
        ),
        (
            bash(1),
            json!({"behavior": "allow", "remember": true}),
            Err(AnswerError::NotByKeys { field: "remember" }),
        ),
        (
            bash(1),
            json!({"behavior": "allow", "updated_permissions": []}),
            Err(AnswerError::NotByKeys { field: "updated_permissions" }),
        ),
    ] {
        assert_eq!(answer(&dialog, &says(given.clone())), keys, "{dialog:?} {given}");
    }
}

//! Flows as tables: what is refused, what is said, what becomes of answers.

use super::*;
use serde_json::{Value, json};

fn team(flow: Value) -> TeamSpec {
    serde_json::from_value(json!({"agents": {"a": {}, "b": {}, "c": {}}, "flow": flow})).unwrap()
}

fn step(value: Value) -> Step {
    serde_json::from_value(value).unwrap()
}

fn answer(agent: &str, state: AnswerState, text: &str) -> Answer {
    Answer {
        agent: agent.into(),
        key: None,
        session_id: None,
        message_id: None,
        state,
        text: (state == AnswerState::Answered).then(|| text.to_owned()),
        error: None,
        result: None,
    }
}

#[test]
fn a_flow_that_could_not_be_run_is_refused() {
    let draft = json!({"ask": "a", "text": "t", "as": "draft"});
    for (flow, said) in [
        (json!([{}]), "step 1 must have exactly one"),
        (json!([{"ask": "a", "route": "b", "text": "t"}]), "step 1 must have exactly one"),
        (json!([{"ask": "a"}]), "step 1 needs `text`"),
        (json!([{"fanout": ["a"]}]), "step 1 needs `text`"),
        (json!([draft, {"route": "b"}]), "step 2 needs `from`"),
        (json!([{"ask": "x", "text": "t"}]), "step 1: the team has no agent \"x\""),
        (json!([{"fanout": ["a", "a"], "text": "t"}]), "step 1 names agent \"a\" twice"),
        (json!([{"route": "b", "from": "draft"}, draft]), "step 1: no earlier step is `as: draft`"),
        (json!([{"route": "b", "from": "message"}]), "no earlier step"),
        (json!([draft, draft]), "step 2: `as: draft` is taken"),
        (json!([{"ask": "a", "text": "t", "as": "message"}]), "`as: message` is taken"),
        (json!([{"ask": "a", "text": "t", "as": "x.a"}]), "or no name"),
        (json!([{"ask": "a", "text": "t", "wrap": "w"}]), "step 1 has `wrap`"),
        (json!([draft, {"route": "b", "from": "draft", "text": "t"}]), "step 2 has `text`"),
        (json!([{"ask": "a", "text": "t", "need": "any"}]), "step 1 has `need`"),
        (json!([{"ask": "a", "text": "t", "key": ""}]), "step 1: a key"),
        (Value::Array(vec![draft.clone(); 101]), "more than 100"),
    ] {
        let fault = check(&team(flow.clone())).unwrap_err().to_string();
        assert!(fault.contains(said), "{flow}: {fault}");
    }
    let whole = json!([
        draft,
        {"fanout": ["b", "c"], "text": "Judge {draft}", "as": "verdicts", "need": "any", "key": "k"},
        {"route": "a", "from": "verdicts", "wrap": "They say {message} of {draft}"},
    ]);
    assert_eq!(check(&team(whole)), Ok(()));
    assert_eq!(check(&team(json!([]))), Ok(()));
}

#[test]
fn steps_say_what_earlier_ones_have_answered() {
    let mut values = Values::from([("message".to_owned(), "doors".to_owned())]);
    let draft = step(json!({"ask": "a", "text": "Write of {message} {not this}", "as": "draft"}));
    assert_eq!(text(&draft, &values), "Write of doors {not this}");
    keep(&draft, &[answer("a", AnswerState::Answered, "D")], &mut values);
    let judge = step(json!({"fanout": ["b", "c"], "text": "Judge: {draft}", "as": "v", "need": "any"}));
    assert_eq!(text(&judge, &values), "Judge: D");
    let answers =
        [answer("b", AnswerState::Answered, "good {draft}"), answer("c", AnswerState::Failed, "API Error")];
    keep(&judge, &answers, &mut values);
    for (last, expected) in [
        (json!({"route": "a", "from": "v"}), "b:\ngood {draft}"),
        (json!({"route": "a", "from": "v", "wrap": "<{message}> on {draft}"}), "<b:\ngood {draft}> on D"),
        (json!({"ask": "a", "text": "{v.b}|{v.c}|{message}"}), "good {draft}|{v.c}|doors"),
    ] {
        assert_eq!(text(&step(last.clone()), &values), expected, "{last}");
    }
}

#[test]
fn a_step_is_over_when_nobody_is_waited_for() {
    use AnswerState::{Answered, Failed, Waiting};
    for (answers, all, any) in [
        (vec![Answered, Answered], Answered, Answered),
        (vec![Answered, Failed], Failed, Answered),
        (vec![Failed, Failed], Failed, Failed),
        (vec![Failed, Waiting], Waiting, Waiting),
        (vec![Waiting, Answered], Waiting, Waiting),
    ] {
        let answers: Vec<_> = answers.into_iter().map(|state| answer("a", state, "x")).collect();
        assert_eq!((state(Need::All, &answers), state(Need::Any, &answers)), (all, any), "{answers:?}");
    }
}

#[test]
fn a_flow_tells_whether_it_takes_a_message() {
    assert!(takes_message(&[step(json!({"ask": "a", "text": "x {message}"}))]));
    assert!(!takes_message(&[step(json!({"ask": "a", "text": "x {mess}"}))]));
    assert!(!takes_message(&[step(json!({"route": "a", "from": "x", "wrap": "{message}"}))]));
}

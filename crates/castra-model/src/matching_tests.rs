//! Which rule answers: tables over facts.

use super::*;
use crate::request::ToolResult;
use crate::side::Side;

fn user(text: &str) -> Facts {
    Facts {
        model: "claude-opus-4-8".into(),
        last_user: Some(text.into()),
        fresh_user: true,
        tools: vec!["Bash".into()],
        system: "You are Claude Code.".into(),
        messages: 1,
        ..Facts::default()
    }
}

fn result(tool: &str, text: &str, is_error: bool) -> Facts {
    Facts {
        fresh_user: false,
        messages: 3,
        tool_results: vec![ToolResult { tool: Some(tool.into()), text: text.into(), is_error }],
        ..user("go")
    }
}

fn engine(rules: &str) -> Engine {
    Engine::new(Script::parse(rules).unwrap())
}

fn chosen(engine: &mut Engine, facts: &Facts) -> Option<String> {
    let rule = engine.choose(facts).rule?;
    Some(engine.script().rules()[rule].name.clone())
}

#[test]
fn one_condition_at_a_time() {
    let table = [
        (r#"last_user.contains = "lo wo""#, user("hello world"), true),
        (r#"last_user.contains = "LO""#, user("hello"), false),
        (r#"last_user = { contains = "LO", ignore_case = true }"#, user("hello"), true),
        (r#"last_user.regex = '^h.*o$'"#, user("hello"), true),
        (r#"last_user.regex = '^H'"#, user("hello"), false),
        (r#"last_user = { regex = '^H', ignore_case = true }"#, user("hello"), true),
        (r#"last_user.contains = "go""#, result("Bash", "x", false), false),
        (r#"tool_result = {}"#, result("Bash", "x", false), true),
        (r#"tool_result = {}"#, user("x"), false),
        (r#"tool_result.contains = "x""#, result("Bash", "xyz", false), true),
        (r#"tool_result.regex = '^y'"#, result("Bash", "xyz", false), false),
        (r#"tool_result.tool = "Bash""#, result("Bash", "", false), true),
        (r#"tool_result.tool = "Read""#, result("Bash", "", false), false),
        (r#"tool_result.is_error = true"#, result("Bash", "", false), false),
        (r#"tool_result.is_error = true"#, result("Bash", "", true), true),
        ("last_user.contains = \"go\"\nwhen.tool_result = {}", result("Bash", "", false), true),
        (r#"system_contains = "Claude Code""#, user("x"), true),
        (r#"system_contains = "plan""#, user("x"), false),
        (r#"model = "opus""#, user("x"), true),
        (r#"model = "haiku""#, user("x"), false),
        (r#"offers_tool = "Bash""#, user("x"), true),
        (r#"offers_tool = "Ba""#, user("x"), false),
        (r#"plan_mode = false"#, user("x"), true),
        (r#"plan_mode = true"#, user("x"), false),
        (r#"call = 1"#, user("x"), true),
        (r#"call = 2"#, user("x"), false),
        (r#"side = "title""#, user("x"), false),
    ];
    for (when, facts, want) in table {
        let mut engine = engine(&format!("[[rule]]\nname = \"r\"\nwhen.{when}\nreply.text = \"\""));
        assert_eq!(chosen(&mut engine, &facts).is_some(), want, "{when} on {facts:?}");
    }
}

#[test]
fn the_first_rule_wins_and_the_groups_come_along() {
    let mut engine = engine(
        r#"
        [[rule]]
        name = "run"
        when.last_user.regex = '^run: (\w+)( now)?'
        reply.text = "{{capture:1}}"
        [[rule]]
        name = "rest"
        reply.text = ""
        "#,
    );
    let captures = vec!["run: ls".to_owned(), "ls".to_owned(), String::new()];
    let want = Choice { rule: Some(0), call: 1, tool_result: None, captures };
    assert_eq!(engine.choose(&user("run: ls")), want);
    assert_eq!(chosen(&mut engine, &user("else")).as_deref(), Some("rest"));
}

#[test]
fn the_newest_fitting_result_is_the_one() {
    let mut engine = engine("[[rule]]\nwhen.tool_result.tool = \"Bash\"\nreply.text = \"\"");
    let mut facts = result("Bash", "first", false);
    facts.tool_results.extend(result("Bash", "second", false).tool_results);
    facts.tool_results.extend(result("Read", "third", false).tool_results);
    assert_eq!(engine.choose(&facts).tool_result, Some(1));
}

#[test]
fn rules_are_spent() {
    let mut engine = engine(
        r#"
        [[rule]]
        name = "second of these"
        when = { last_user.contains = "x", nth = 2 }
        reply.text = ""
        [[rule]]
        name = "twice"
        when.times = 2
        reply.text = ""
        "#,
    );
    let texts = ["x", "x", "y", "x", "y"];
    let names = texts.map(|text| chosen(&mut engine, &user(text)));
    let want = [Some("twice"), Some("second of these"), Some("twice"), None, None];
    assert_eq!(names, want.map(|name| name.map(str::to_owned)));
    engine.replace(engine.script().clone());
    assert_eq!(chosen(&mut engine, &user("y")).as_deref(), Some("twice"), "a new script is unspent");
}

#[test]
fn attempts_are_the_same_request_in_a_row() {
    let mut engine = engine(
        r#"
        [[rule]]
        name = "fail"
        when.first_attempts = 2
        reply.error.status = 529
        [[rule]]
        name = "answer"
        reply.text = ""
        "#,
    );
    let later = Facts { messages: 3, ..user("x") };
    let facts = [user("x"), user("x"), user("x"), user("y"), later];
    let names = facts.map(|facts| chosen(&mut engine, &facts).unwrap());
    assert_eq!(names, ["fail", "fail", "answer", "fail", "fail"]);
}

#[test]
fn calls_are_counted_for_each_conversation() {
    let mut engine = engine("");
    let of = |conversation: &str| Facts { conversation: conversation.into(), ..user("x") };
    let calls = ["a", "b", "a", "", "a"].map(|name| engine.choose(&of(name)).call);
    assert_eq!(calls, [1, 1, 2, 1, 3]);
    for n in 0..CONVERSATIONS - 1 {
        engine.choose(&of(&n.to_string()));
    }
    assert_eq!(engine.calls.len(), CONVERSATIONS);
    assert_eq!(engine.choose(&of("a")).call, 4, "the newest of the old ones is kept");
    assert_eq!(engine.choose(&of("b")).call, 1, "the oldest is forgotten");
}

#[test]
fn side_calls_use_up_nothing() {
    let mut engine = engine(
        r#"
        [[rule]]
        name = "own"
        when.side = "compact"
        reply.text = ""
        [[rule]]
        name = "once"
        when.times = 1
        reply.text = ""
        "#,
    );
    let side = |side| Facts { side: Some(side), ..user("x") };
    assert_eq!(chosen(&mut engine, &side(Side::Title)), None);
    assert_eq!(chosen(&mut engine, &side(Side::Compact)).as_deref(), Some("own"));
    let choice = engine.choose(&user("x"));
    assert_eq!((choice.rule, choice.call), (Some(1), 1));
}

//! What a script may say: the errors that its author reads.

use super::*;
use crate::request::Facts;
use crate::template::Scene;

fn error(source: &str) -> String {
    Script::parse(source).unwrap_err().to_string()
}

#[test]
fn values_that_contradict_are_refused_by_rule_and_field() {
    let table = [
        (r#"when.call = 0"#, "when.call", "must be at least 1"),
        (r#"when.last_user = {}"#, "when.last_user", "needs exactly one of contains, regex"),
        (
            r#"when.last_user = { contains = "a", regex = "b" }"#,
            "when.last_user",
            "needs exactly one of contains, regex",
        ),
        (
            r#"when.side = "tilte""#,
            "when.side",
            "`tilte` is not one of probe, title, structured, compact, side_question, suggestion, summary",
        ),
        (r#"reply.blocks = []"#, "reply.text", "blocks cannot be used with it"),
        (r#"reply.error.status = 200"#, "reply.error.status", "must be between 400 and 599"),
        (
            r#"reply.error.status = 500"#,
            "reply.error",
            "without `after_chars`, content and its timing cannot be used with it",
        ),
        (r#"reply.pace.chunk_chars = 0"#, "reply.pace.chunk_chars", "must be at least 1"),
        (r#"reply.stall.after_chars = 5"#, "reply.stall", "needs exactly one of for_ms, forever = true"),
    ];
    for (line, field, problem) in table {
        let source = format!("[[rule]]\nname = \"x\"\nreply.text = \"\"\n{line}");
        assert_eq!(error(&source), format!("rule `x`, field `{field}`: {problem}"));
    }
}

#[test]
fn blocks_are_checked_one_by_one() {
    let table = [
        (r#"{}"#, "reply.blocks[1]", "needs exactly one of text, thinking, tool_use"),
        (
            r#"{ text = "a", thinking = "b" }"#,
            "reply.blocks[1]",
            "needs exactly one of text, thinking, tool_use",
        ),
        (r#"{ text = "{{nope" }"#, "reply.blocks[1].text", "`{{` without `}}`"),
        (
            r#"{ text = "a", size = "1 elephant" }"#,
            "reply.blocks[1].size",
            "`1 elephant` is no size; write \"10MB\", \"64KiB\" or a number of bytes",
        ),
        (r#"{ text = "a", size = "1000MB" }"#, "reply.blocks[1].size", "must be at most 256MiB"),
        (
            r#"{ text = "a", size = "1MB", repeat = 2 }"#,
            "reply.blocks[1].size",
            "`repeat` cannot be used with it",
        ),
        (
            r#"{ text = "a", signature = "s" }"#,
            "reply.blocks[1].signature",
            "a block other than `thinking` cannot be used with it",
        ),
        (
            r#"{ tool_use = { name = "Bash" }, repeat = 2 }"#,
            "reply.blocks[1].repeat",
            "`tool_use` cannot be used with it",
        ),
    ];
    for (block, field, problem) in table {
        let source = format!("[[rule]]\nreply.blocks = [{{ text = \"\" }}, {block}]");
        assert_eq!(error(&source), format!("rule `#1`, field `{field}`: {problem}"));
    }
}

#[test]
fn unknown_fields_and_wrong_types_name_the_rule_the_field_and_the_line() {
    let unknown =
        error("[[rule]]\nname = \"a\"\nreply.text = \"\"\n\n[[rule]]\nname = \"b\"\nreply.txt = \"\"\n");
    assert!(unknown.starts_with("rule `b`, field `reply.txt`: "), "{unknown}");
    assert!(unknown.contains("line 7") && unknown.contains("unknown field `txt`"), "{unknown}");
    let wrong = error("[[rule]]\nreply.text = \"\"\nwhen.times = \"two\"");
    assert!(wrong.starts_with("rule `#1`, field `when.times`: ") && wrong.contains("line 3"), "{wrong}");
    let top = error("rules = []");
    assert!(top.starts_with("script, field `rules`: "), "{top}");
    let syntax = error("[[rule]\n");
    assert!(syntax.starts_with("the script is no TOML: ") && syntax.contains("line 1"), "{syntax}");
}

#[test]
fn names_groups_and_regexes_are_checked() {
    let twice = "[[rule]]\nname = \"a\"\nreply.text = \"\"\n[[rule]]\nname = \"a\"\nreply.text = \"\"";
    assert_eq!(error(twice), "rule `a`, field `name`: the name is taken by an earlier rule");
    let group = "[[rule]]\nwhen.last_user.regex = '(a)'\nreply.text = \"{{capture:2}}\"";
    assert_eq!(
        error(group),
        "rule `#1`, field `reply`: `{{capture:2}}` has no such group in the rule's regex"
    );
    let bad = error("[[rule]]\nwhen.last_user.regex = '('\nreply.text = \"\"");
    assert!(bad.starts_with("rule `#1`, field `when.last_user.regex`: regex parse error"), "{bad}");
    assert_eq!(
        error("[[rule]]\nreply = {}"),
        "rule `#1`, field `reply`: needs exactly one of text, blocks, error"
    );
}

#[test]
fn the_demo_answers_what_its_help_names() {
    let script = Script::default_demo().unwrap();
    let table = [
        ("hello", "hello"),
        ("Good morning!", "hello"),
        ("what can you do?", "help"),
        ("list the files", "list-files"),
        ("run: cargo test\n", "run"),
        ("run `make`", "run-quoted"),
        ("read notes.md", "read-here"),
        ("read /etc/hosts", "read"),
        ("write a haiku to haiku.txt", "write-haiku"),
        ("write a haiku please", "haiku"),
        ("ask me something", "ask-without-tool"),
        ("think about tea", "think"),
        ("plan a picnic", "plan"),
        ("count to 20 slowly", "count"),
        ("remember that tea is good", "remember"),
        ("what did I ask you before?", "memory"),
        ("do you remember?", "memory"),
        ("fail with 529", "fail-529"),
        ("fail with a 404", "fail-404"),
        ("break the connection", "break"),
        ("stall", "stall"),
        ("write a lot", "flood"),
        ("anything else", "echo"),
    ];
    for (text, want) in table {
        let mut engine = crate::matching::Engine::new(script.clone());
        let facts = Facts { last_user: Some(text.into()), fresh_user: true, ..Facts::default() };
        let choice = engine.choose(&facts);
        let rule = &script.rules()[choice.rule.unwrap()];
        assert_eq!(rule.name, want, "{text}");
        let scene = Scene { facts: &facts, tool_result: None, captures: &choice.captures, call: choice.call };
        let _rendered = rule.reply.render(&scene, &crate::message::Ids(script.digest()));
    }
}

const DOCS: &str = include_str!("../../../docs/model.md");

#[test]
fn the_examples_of_the_documentation_are_scripts() {
    let examples: Vec<_> = DOCS
        .split("```toml\n")
        .skip(1)
        .filter_map(|rest| rest.split_once("```"))
        .map(|(toml, _)| toml)
        .collect();
    assert_eq!(examples.len(), 1);
    for example in examples {
        let script = Script::parse(example).unwrap();
        let names: Vec<_> = script.rule_names().collect();
        assert_eq!(names, ["list", "listed", "busy at first", "slow", "anything else"]);
    }
}

#[test]
fn the_documentation_names_every_field_and_every_side_call() {
    let fields = include_str!("format.rs").lines().filter_map(|line| {
        let (name, _) = line.trim().strip_prefix("pub(crate) ")?.split_once(':')?;
        Some(name.trim_start_matches("r#"))
    });
    let fields: Vec<_> = fields.collect();
    assert!(fields.len() > 40, "the fields are found: {fields:?}");
    let words: Vec<_> = DOCS.split(|c: char| !(c.is_alphanumeric() || c == '_')).collect();
    let missing: Vec<_> = fields.into_iter().filter(|field| !words.contains(field)).collect();
    assert_eq!(missing, [""; 0]);
    for side in Side::ALL {
        assert!(
            DOCS.contains(&format!("`side = \"{}\"`", side.name()))
                || DOCS.contains(&format!("`\"{}\"`", side.name()))
        );
    }
}

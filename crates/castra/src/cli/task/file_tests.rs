//! Task files in three formats, and what is said of wrong ones.

use super::*;
use castra_proto::SessionSpec;
use castra_proto::spec::PermissionMode;
use castra_proto::task::Completion;
use serde_json::json;

const TOML: &str = r#"
# A report.
name = "report"
instructions = """
Write it.
"""
completion = ["protocol"]
retries = 2

[session]
permission_mode = "acceptEdits"
allowed_tools = ["Bash(echo:*)"]

[session.settings]
cleanupPeriodDays = 7

[labels]
kind = "report"
"#;

const YAML: &str = r#"
# A report.
name: report
instructions: |
  Write it.
completion: [protocol]
retries: 2
session:
  permission_mode: acceptEdits
  allowed_tools: ["Bash(echo:*)"]
  settings: {cleanupPeriodDays: 7}
labels:
  kind: report
"#;

const JSON: &str = r#"{
  "name": "report",
  "instructions": "Write it.\n",
  "completion": ["protocol"],
  "retries": 2,
  "session": {"permission_mode": "acceptEdits", "allowed_tools": ["Bash(echo:*)"], "settings": {"cleanupPeriodDays": 7}},
  "labels": {"kind": "report"}
}"#;

fn parse(name: &str, format: Format, text: &str) -> Result<TaskSpec, Failure> {
    super::parse(name, format, text, "task")
}

#[test]
fn the_same_task_in_three_formats() {
    let expected = TaskSpec {
        name: Some("report".into()),
        instructions: Some("Write it.\n".into()),
        completion: Some(vec![Completion::Protocol]),
        retries: 2,
        session: SessionSpec {
            permission_mode: PermissionMode::AcceptEdits,
            allowed_tools: vec!["Bash(echo:*)".into()],
            settings: Some(json!({"cleanupPeriodDays": 7})),
            ..SessionSpec::default()
        },
        labels: [("kind".to_owned(), "report".to_owned())].into(),
        ..TaskSpec::default()
    };
    // JSON through the reader of YAML too: what stdin takes.
    for (format, text) in
        [(Format::Toml, TOML), (Format::Yaml, YAML), (Format::Json, JSON), (Format::Yaml, JSON)]
    {
        assert_eq!(parse("x", format, text), Ok(expected.clone()), "{format:?}");
    }
}

#[test]
fn the_extension_says_the_format_or_the_first_line_does() {
    let table = [
        ("a.toml", "", Format::Toml),
        ("a.yaml", "{", Format::Yaml),
        ("a.yml", "", Format::Yaml),
        ("a.json", "", Format::Json),
        ("-", JSON, Format::Yaml),
        ("a", TOML, Format::Toml),
        ("a", "[session]\ndemo = true", Format::Toml),
        ("a.task", YAML, Format::Yaml),
        ("a", JSON, Format::Json),
        ("a", "instructions: a = b", Format::Yaml),
        ("a", "# nothing", Format::Yaml),
    ];
    for (name, text, expected) in table {
        assert_eq!(format(Path::new(name), text), expected, "{name} {text:?}");
    }
}

#[test]
fn a_wrong_file_is_told_by_file_line_and_field() {
    let table = [
        (
            Format::Toml,
            "name = 'a'\ninstuctions = 'b'",
            "f:2: unknown field `instuctions`",
            Some("is `instructions` meant?"),
        ),
        (
            Format::Yaml,
            "name: a\ninstuctions: b",
            "f:2: unknown field `instuctions`",
            Some("is `instructions` meant?"),
        ),
        (
            Format::Json,
            "{\"name\": \"a\",\n\"instuctions\": 1}",
            "f:2: unknown field `instuctions`",
            Some("is `instructions` meant?"),
        ),
        (
            Format::Toml,
            "[session]\nalowed_tools = []",
            "f:2: unknown field `session.alowed_tools`",
            Some("is `allowed_tools` meant?"),
        ),
        (
            Format::Yaml,
            "session:\n  alowed_tools: []",
            "f:2: unknown field `session.alowed_tools`",
            Some("is `allowed_tools` meant?"),
        ),
        (
            Format::Yaml,
            "session:\n  limits:\n    turns: 3",
            "f:3: unknown field `session.limits.turns`",
            Some("known here: max_turns, max_budget_usd, max_runtime_s, idle_timeout_s, memory_mb"),
        ),
        (
            Format::Yaml,
            "prompt: x",
            "f:1: unknown field `prompt`",
            Some("`castra task schema` has all fields"),
        ),
    ];
    for (format, text, message, hint) in table {
        let failure = parse("f", format, text).unwrap_err();
        assert_eq!(
            (failure.message.as_deref(), failure.hint.as_deref(), failure.exit),
            (Some(message), hint, 2),
            "{text}"
        );
    }
    // Of what a reader says in words of its own, the place and the field are ours.
    let table = [
        (Format::Toml, "name = 'a'\nretries = 'two'", "f:2: `retries`: "),
        (Format::Yaml, "name: a\nretries: two", "f:2: `retries`: "),
        (Format::Json, "{\"name\": \"a\",\n\"retries\": \"two\"}", "f:2: `retries`: "),
        (Format::Yaml, "labels:\n  a: [b]", "f:2: `labels.a`: "),
        (Format::Yaml, "completion:\n  - done", "f:2: `completion[0]`: "),
        (Format::Yaml, "name: 'a", "f:1: "),
        (Format::Toml, "name: a", "f:1: "),
        (Format::Json, "{\"name\": \"a\"}\nx", "f:2: "),
        (Format::Yaml, "- a", "f:1: "),
    ];
    for (format, text, begin) in table {
        let message = parse("f", format, text).unwrap_err().message.unwrap();
        assert!(message.starts_with(begin) && !message.contains('\n'), "{text:?}: {message:?}");
    }
}

#[test]
fn flags_lie_over_the_file_whose_folders_are_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    std::fs::create_dir_all(root.join("tasks/repo")).unwrap();
    std::fs::write(root.join("tasks/a.yaml"), "name: a\nvalues: {x: 1}\nsession: {workdir: repo}").unwrap();
    let args = |cwd: Option<&str>| FileArgs {
        file: "tasks/a.yaml".into(),
        name: None,
        values: vec![("n".into(), "5".into()), ("x".into(), "2".into())],
        cwd: cwd.map(Into::into),
        demo: true,
    };
    let spec = build(args(None), &root).unwrap();
    assert_eq!(spec.session.workdir, Some(root.join("tasks/repo").to_str().unwrap().to_owned()));
    assert_eq!(json!(spec.values), json!({"n": "5", "x": "2"}));
    assert_eq!((spec.name.as_deref(), spec.session.demo), (Some("a"), true));
    let spec = build(FileArgs { name: Some("b".into()), ..args(Some("tasks")) }, &root).unwrap();
    assert_eq!(spec.session.workdir, Some(root.join("tasks").to_str().unwrap().to_owned()));
    assert_eq!(spec.name.as_deref(), Some("b"));

    std::fs::write(root.join("tasks/empty"), " \n").unwrap();
    for (file, message) in [("tasks/empty", "tasks/empty is empty"), ("none", "cannot read none: ")] {
        let failure = build(FileArgs { file: file.into(), ..args(None) }, &root).unwrap_err();
        assert!(failure.message.as_ref().is_some_and(|said| said.starts_with(message)), "{failure:?}");
        assert_eq!(failure.exit, 2);
    }
}

//! What a task may be: its parameters filled in, and what cannot work refused before anything is made. Pure.

use super::start::check_name;
use super::task_new::below;
use crate::task::group::{self, MAX_CHILDREN, MAX_DEPTH, name_of};
use crate::task::params;
use crate::task::protocol::text::MCP_SERVER;
use crate::task::view::{completion, has_mcp, mode};
use crate::{Error, Result, redact};
use castra_proto::spec::Mode;
use castra_proto::task::{Completion, ProgressRule, Protocol, Start};
use castra_proto::{ErrorCode, TaskSpec};
use serde_json::Value;

/// A template with the values of this launch in their places. What it declares and what it was given stays with it.
pub(super) fn launched(spec: TaskSpec) -> Result<TaskSpec> {
    if spec.params.is_empty() && spec.values.is_empty() {
        return Ok(spec);
    }
    let refuse = |errors: Vec<params::ParamError>| {
        let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let hint = "`params` of the task says what each may be";
        Error::with_hint(ErrorCode::InvalidRequest, all.join("; "), hint)
    };
    params::declared(&spec.params).map_err(refuse)?;
    let values = params::check(&spec.params, &spec.values).map_err(refuse)?;
    let whole = |error: serde_json::Error| {
        let detail = format!("with its parameters filled in it is no task: {error}");
        Error::with_hint(
            ErrorCode::InvalidRequest,
            detail,
            "a parameter that is all of a field has the field's kind",
        )
    };
    let secret = redact::secret_params(&spec);
    let template = TaskSpec { params: Default::default(), values: Default::default(), ..spec.clone() };
    let filled: Value = params::expand_value(&serde_json::to_value(&template).map_err(whole)?, &values);
    let filled: TaskSpec = serde_json::from_value(filled).map_err(whole)?;
    let mut filled = TaskSpec { params: spec.params, values, ..filled };
    // They are in their places; what stays of them is for those who look.
    redact::mask_params(&mut filled, &secret);
    Ok(filled)
}

/// Refuses what cannot work, with the reason; of a task with all that is below it.
pub(super) fn check(spec: &TaskSpec) -> Result<()> {
    let mut left = MAX_CHILDREN;
    check_below(spec, 0, &mut left)
}

fn check_below(spec: &TaskSpec, depth: usize, left: &mut usize) -> Result<()> {
    let refuse = |detail: String, hint: &str| Err(Error::with_hint(ErrorCode::InvalidRequest, detail, hint));
    check_one(spec)?;
    check_children(spec)?;
    if depth == MAX_DEPTH && !spec.children.is_empty() {
        let detail = format!("there are more than {MAX_DEPTH} levels of `children`");
        return refuse(detail, "have fewer levels");
    }
    let Some(rest) = left.checked_sub(spec.children.len()) else {
        let detail = format!("there are more than {MAX_CHILDREN} `children`");
        return refuse(detail, "make several tasks of it");
    };
    *left = rest;
    for (n, child) in spec.children.iter().enumerate() {
        let inside = |error| below(&name_of(&spec.children, n), error);
        let own = [
            ("parent", child.parent.is_some()),
            ("ephemeral", child.ephemeral),
            ("ttl_s", child.ttl_s.is_some()),
        ];
        if let Some((field, _)) = own.iter().find(|(_, set)| *set) {
            let detail = format!("`{field}` is not a child's own: it comes and goes with its parent");
            return refuse(detail, "say it of the parent").map_err(inside);
        }
        check_below(child, depth + 1, left).map_err(inside)?;
    }
    Ok(())
}

fn check_children(spec: &TaskSpec) -> Result<()> {
    let refuse = |detail: String, hint: &str| Err(Error::with_hint(ErrorCode::InvalidRequest, detail, hint));
    if spec.group.limit == Some(0) {
        return refuse("`group.limit` is 0".into(), "leave it out for 10 at once");
    }
    let of_children = [ProgressRule::Average, ProgressRule::Sequential, ProgressRule::Mapped];
    if spec.children.is_empty() && spec.progress.is_some_and(|rule| of_children.contains(&rule)) {
        return refuse(
            "`progress` names a rule of children, and there are none".into(),
            "use `own` or `todos`",
        );
    }
    if group::is_group(spec) && spec.budget_usd.is_some() {
        let detail = "`budget_usd` is that of a session, and a task without `instructions` has only children";
        return refuse(detail.into(), "say it of each child");
    }
    let shares: u32 = spec.children.iter().filter_map(|child| child.share.map(u32::from)).sum();
    if shares > 100 {
        return refuse(format!("the `share`s of the children are {shares} percent together"), "100 is all");
    }
    let mut names: Vec<&String> = spec.children.iter().filter_map(|child| child.name.as_ref()).collect();
    names.sort();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return refuse(
            format!("two children have the name {:?}", twice[0]),
            "names are unique among siblings",
        );
    }
    if let Some(cycle) = group::cycle(spec) {
        let detail = format!("children wait for each other: {}", cycle.join(" → "));
        return refuse(detail, "`depends_on`, and the order of a sequence, must lead to a beginning");
    }
    Ok(())
}

fn check_one(spec: &TaskSpec) -> Result<()> {
    let refuse = |detail: String, hint: &str| Err(Error::with_hint(ErrorCode::InvalidRequest, detail, hint));
    if let Some(name) = &spec.name {
        check_name(name)?;
    }
    crate::task::inputs::check::check(spec)?;
    if spec.protocol == Protocol::Mcp && mode(spec) == Mode::Terminal {
        return refuse(
            "`protocol: mcp` goes over claude's control channel, which a terminal does not have".into(),
            "use `log` or `both`",
        );
    }
    if session_has_our_server(spec) {
        return refuse(
            format!("`session.mcp_servers.{MCP_SERVER}` would stand in the way of castra's own server"),
            "give it another name",
        );
    }
    let session = &spec.session;
    let own = [
        ("resume", session.resume.is_some()),
        ("continue", session.continue_),
        ("fork_of", session.fork_of.is_some()),
        ("session_id", session.session_id.is_some()),
        ("ephemeral", session.ephemeral),
    ];
    if let Some((field, _)) = own.iter().find(|(_, set)| *set) {
        return refuse(
            format!("`session.{field}` is the task's own business: each attempt has a session of its own"),
            "leave it out; `castra task resume ID` goes on in the last one",
        );
    }
    if spec.instructions.as_ref().is_some_and(|text| text.trim().is_empty()) {
        return refuse("`instructions` are empty".into(), "say what is to be done, or leave them out");
    }
    let counts = completion(spec);
    if counts.contains(&Completion::Protocol) && spec.protocol == Protocol::None {
        return refuse(
            "`completion` names `protocol`, and `protocol` is `none`".into(),
            "use another protocol, or `completion: [result]`",
        );
    }
    if counts.contains(&Completion::Result) && (spec.start == Start::Manual || spec.instructions.is_none()) {
        return refuse(
            "`completion` names `result`, and the task has no message of its own whose turn could end".into(),
            "give `instructions` with `start: auto`",
        );
    }
    if counts.is_empty() && spec.instructions.is_some() {
        return refuse(
            "nothing could ever show that this task is done".into(),
            "name `protocol`, `exit` or `result` under `completion`",
        );
    }
    if session.limits.max_runtime_s == Some(0) || spec.timeout_s == Some(0) {
        return refuse("`timeout_s` is 0".into(), "leave it out for no limit");
    }
    if spec.budget_usd.is_some() && mode(spec) == Mode::Terminal {
        return refuse(
            "`budget_usd` is kept by claude itself, which does so in stream mode only".into(),
            "use `mode: stream`, or bound its time with `timeout_s`",
        );
    }
    if spec.budget_usd.is_some_and(|budget| budget.is_nan() || budget <= 0.0) {
        return refuse("`budget_usd` is not above 0".into(), "leave it out for no limit");
    }
    Ok(())
}

fn session_has_our_server(spec: &TaskSpec) -> bool {
    has_mcp(spec) && spec.session.mcp_servers.contains_key(MCP_SERVER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(value: Value) -> TaskSpec {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn values_take_the_places_of_their_parameters() {
        let template = spec(json!({
            "instructions": "Write {{what}} and {not this}",
            "params": {"what": {"kind": "text", "required": true}, "cents": {"kind": "number", "default": 2}},
            "values": {"what": "a {{cents}} poem"},
            "labels": {"about": "{{what}}"},
            "metadata": {"cents": "{{cents}}"},
        }));
        let filled = launched(template.clone()).unwrap();
        assert_eq!(filled.instructions.as_deref(), Some("Write a {{cents}} poem and {not this}"));
        assert_eq!(
            (filled.labels["about"].as_str(), filled.metadata),
            ("a {{cents}} poem", Some(json!({"cents": 2})))
        );
        assert_eq!(filled.params, template.params);
        for (values, said) in [
            (json!({}), "what: a value is needed"),
            (json!({"what": "x", "hwat": "y"}), "hwat: there is no such parameter"),
        ] {
            let mut template = template.clone();
            template.values = serde_json::from_value(values).unwrap();
            let problem = launched(template).unwrap_err().problem();
            assert_eq!((problem.code, problem.detail.as_str()), (ErrorCode::InvalidRequest, said));
        }
    }

    #[test]
    fn of_what_was_filled_into_a_secret_place_nothing_stays_to_be_seen() {
        let template = spec(json!({
            "instructions": "Write about {{what}}",
            "params": {"tok": {"kind": "text", "default": "s3cret-1"}, "what": {"kind": "text"}},
            "values": {"tok": "s3cret-2", "what": "doors"},
            "session": {"env": {"TOKEN": "<{{tok}}>"}},
        }));
        let filled = launched(template).unwrap();
        assert_eq!(filled.session.env["TOKEN"], "<s3cret-2>");
        let values = serde_json::to_value(&filled.values).unwrap();
        assert_eq!(values, json!({"tok": redact::MASK, "what": "doors"}));
        let shown = serde_json::to_string(&redact::split_task(&filled).0).unwrap();
        assert!(!shown.contains("s3cret"), "{shown}");
    }

    #[test]
    fn what_cannot_work_is_refused_with_the_reason() {
        for (task, part) in [
            (json!({"instructions": " "}), "`instructions` are empty"),
            (json!({"instructions": "x", "name": "a b"}), "a b"),
            (
                json!({"instructions": "x", "protocol": "none", "completion": ["protocol"]}),
                "`protocol` is `none`",
            ),
            (
                json!({"instructions": "x", "start": "manual", "completion": ["result"]}),
                "no message of its own",
            ),
            (json!({"instructions": "x", "completion": []}), "nothing could ever show"),
            (json!({"instructions": "x", "mode": "terminal", "protocol": "mcp"}), "control channel"),
            (json!({"instructions": "x", "session": {"mcp_servers": {"castra": {}}}}), "in the way"),
            (json!({"instructions": "x", "session": {"resume": "1"}}), "session.resume"),
            (json!({"instructions": "x", "timeout_s": 0}), "timeout_s"),
            (json!({"instructions": "x", "budget_usd": 0.0}), "budget_usd"),
            (json!({"instructions": "x", "budget_usd": 1.0, "mode": "terminal"}), "stream mode only"),
        ] {
            let problem = check(&spec(task.clone())).unwrap_err().problem();
            assert!(problem.detail.contains(part) && problem.hint.is_some(), "{task}: {problem:?}");
        }
        for task in [
            json!({}),
            json!({"instructions": "x"}),
            json!({"instructions": "x", "mode": "terminal"}),
            json!({"instructions": "x", "protocol": "none"}),
            json!({"instructions": "x", "mode": "terminal", "session": {"mcp_servers": {"castra": {}}}}),
        ] {
            assert!(check(&spec(task.clone())).is_ok(), "{task}");
        }
    }
}

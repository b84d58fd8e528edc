//! What becomes of a parent by what becomes of its children.

use super::*;
use serde_json::json;

fn spec(value: Value) -> TaskSpec {
    serde_json::from_value(value).unwrap()
}

#[test]
fn what_a_child_does_not_set_it_has_from_its_parent() {
    let settled = settled(spec(json!({
        "name": "all",
        "priority": 3,
        "labels": {"team": "blue", "kind": "x"},
        "session": {"name": "s", "demo": true, "model": "opus", "env": {"A": "1"}, "allowed_tools": ["Bash"]},
        "children": [
            {"instructions": "a"},
            {
                "name": "b", "instructions": "b", "priority": 1, "labels": {"kind": "y"},
                "session": {"model": "haiku", "env": {"B": "2"}},
                "children": [{"instructions": "c", "session": {"allowed_tools": ["Read"]}}],
            },
        ],
    })));
    let settled = settled.unwrap();
    let [a, b] = &settled.children[..] else { panic!("{settled:?}") };
    assert_eq!((a.priority, b.priority, b.children[0].priority), (3, 1, 1));
    assert_eq!((a.labels["kind"].as_str(), b.labels["kind"].as_str()), ("x", "y"));
    assert_eq!(b.labels["team"], "blue");
    assert_eq!((&a.name, &a.session.name), (&None, &None));
    assert!(a.session.demo && b.session.demo && b.children[0].session.demo);
    assert_eq!((a.session.model.as_deref(), b.session.model.as_deref()), (Some("opus"), Some("haiku")));
    assert_eq!(b.session.env.keys().collect::<Vec<_>>(), ["B"]);
    let c = &b.children[0].session;
    assert_eq!((c.model.as_deref(), &c.allowed_tools[..]), (Some("haiku"), &["Read".to_owned()][..]));
}

#[test]
fn those_who_wait_for_each_other_are_named() {
    let named = |order: &str, children: &[(&str, &[&str])]| {
        let children: Vec<Value> = children
            .iter()
            .map(|(name, before)| json!({"name": name, "instructions": "x", "depends_on": before}))
            .collect();
        cycle(&spec(json!({"group": {"order": order}, "children": children})))
    };
    assert_eq!(named("parallel", &[("a", &[]), ("b", &["a"]), ("c", &["a", "b"])]), None);
    // What is no sibling is somebody else's.
    assert_eq!(named("parallel", &[("a", &["other"]), ("b", &["a"])]), None);
    assert_eq!(named("parallel", &[("a", &["a"])]).unwrap(), ["a", "a"]);
    assert_eq!(
        named("parallel", &[("z", &[]), ("a", &["b"]), ("b", &["z", "c"]), ("c", &["a"])]).unwrap(),
        ["a", "b", "c", "a"]
    );
    // The order makes them wait too.
    assert_eq!(named("sequential", &[("a", &["b"]), ("b", &[])]).unwrap(), ["a", "b", "a"]);
    assert_eq!(named("sequential", &[("a", &[]), ("b", &["a"])]), None);
}

#[test]
fn what_becomes_of_the_parent() {
    use ChildRule::{Ignore, Stop, Wait};
    use TaskState::{Cancelled, Done, Failed, Queued, Running};
    let group = |on_failure, on_cancel| Group { on_failure, on_cancel, order: Order::Parallel, limit: None };
    for (failure, cancel, states, expected) in [
        (Stop, Stop, &[Done, Running, Queued][..], Verdict::Open),
        (Stop, Stop, &[Done, Done], Verdict::Over),
        (Stop, Stop, &[Running, Failed], Verdict::Ends(1, Failed)),
        (Stop, Stop, &[Cancelled, Failed], Verdict::Ends(0, Cancelled)),
        (Wait, Stop, &[Failed, Running], Verdict::Open),
        (Wait, Stop, &[Failed, Cancelled, Running], Verdict::Ends(1, Cancelled)),
        (Wait, Wait, &[Done, Failed], Verdict::Ends(1, Failed)),
        (Ignore, Stop, &[Failed, Failed], Verdict::Over),
        (Ignore, Stop, &[Failed, Queued], Verdict::Open),
        (Stop, Ignore, &[Cancelled, Done], Verdict::Over),
        (Stop, Wait, &[Cancelled, Running], Verdict::Open),
        (Stop, Wait, &[Cancelled, Done], Verdict::Ends(0, Cancelled)),
    ] {
        assert_eq!(verdict(&group(failure, cancel), states), expected, "{failure:?} {cancel:?} {states:?}");
    }
}

#[test]
fn progress_of_children_is_the_parents_by_its_rule() {
    use TaskState::{Done, Failed, Queued, Running};
    let of = |rule: Option<&str>, shares: &[Option<u8>], children: &[(TaskState, Option<u8>)]| {
        let list: Vec<Value> =
            shares.iter().map(|share| json!({"instructions": "x", "share": share})).collect();
        let mut task = spec(json!({"children": list}));
        task.progress = rule.map(|rule| serde_json::from_value(json!(rule)).unwrap());
        percent(&task, children)
    };
    let even = [None, None, None, None];
    let half = [(Done, None), (Running, Some(50)), (Running, Some(10)), (Queued, None)];
    assert_eq!(of(None, &even, &half), Some(40));
    assert_eq!(of(Some("average"), &even, &half), Some(40));
    assert_eq!(of(Some("sequential"), &even, &half), Some(37));
    assert_eq!(of(Some("own"), &even, &half), None);
    assert_eq!(of(Some("todos"), &even, &half), None);
    assert_eq!(of(Some("mapped"), &[Some(10), Some(60), None, None], &half), Some(10 + 30 + 1));
    assert_eq!(of(Some("mapped"), &[Some(10), Some(90)], &[(Failed, Some(5)), (Done, None)]), Some(100));
    assert_eq!(of(Some("mapped"), &[None, None, None], &[(Done, None); 3]), Some(100));
    assert_eq!(of(None, &[], &[]), None);
}

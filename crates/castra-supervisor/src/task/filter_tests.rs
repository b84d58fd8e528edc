//! Filters as a table over one task's metadata, and the laws of logic.

use super::*;
use proptest::prelude::*;
use serde_json::json;

fn metadata() -> Value {
    json!({
        "team": "red",
        "n": 5,
        "half": 0.5,
        "big": 9_007_199_254_740_993_u64,
        "on": true,
        "none": null,
        "digits": "5",
        "tags": ["a", "b"],
        "build": {"branch": "main", "run": {"id": 7}, "team": "inner"},
        "a.b": "whole",
        "a": {"b": "stepped"},
    })
}

#[test]
fn each_filter_means_what_the_table_says() {
    let table: &[(Value, bool)] = &[
        (json!({"team": "red"}), true),
        (json!({"team": "Red"}), false),
        (json!({"team": {"eq": "red"}}), true),
        (json!({"team": {"ne": "red"}}), false),
        (json!({"team": {"ne": "blue"}}), true),
        (json!({"team": {"in": ["blue", "red"]}}), true),
        (json!({"team": {"in": []}}), false),
        (json!({"team": {"nin": ["blue", "red"]}}), false),
        (json!({"team": {"nin": []}}), true),
        // Paths.
        (json!({"build.branch": "main"}), true),
        (json!({"build.run.id": 7}), true),
        (json!({"build.run": {"eq": {"id": 7.0}}}), true),
        (json!({"branch": "main"}), false),
        (json!({"team.x": "red"}), false),
        (json!({"tags.1": "b"}), true),
        (json!({"tags.2": "b"}), false),
        (json!({"tags.01": "b"}), false),
        (json!({"a.b": "whole"}), true),
        (json!({"a.b": "stepped"}), false),
        // What is there, and what is not.
        (json!({"none": {"exists": true}}), true),
        (json!({"none": null}), true),
        (json!({"gone": {"exists": true}}), false),
        (json!({"gone": {"exists": false}}), true),
        (json!({"gone": null}), false),
        (json!({"gone": {"ne": 1}}), true),
        (json!({"gone": {"nin": [1]}}), true),
        (json!({"gone": {"lt": 1}}), false),
        // Numbers as numbers, strings as strings, and nothing as something else.
        (json!({"n": 5.0}), true),
        (json!({"n": "5"}), false),
        (json!({"n": {"in": [4, 5.0]}}), true),
        (json!({"digits": 5}), false),
        (json!({"on": 1}), false),
        (json!({"on": true}), true),
        (json!({"n": {"gt": 5}}), false),
        (json!({"n": {"gte": 5}}), true),
        (json!({"n": {"lt": 5.5}}), true),
        (json!({"n": {"lte": 4}}), false),
        (json!({"n": {"gt": 4, "lt": 6}}), true),
        (json!({"n": {"gt": 4, "lt": 5}}), false),
        (json!({"n": {"gt": "4"}}), false),
        (json!({"n": {"lte": "4"}}), false),
        (json!({"digits": {"gt": "10"}}), true),
        (json!({"half": {"gt": 0}}), true),
        (json!({"big": 9_007_199_254_740_992_u64}), false),
        (json!({"big": {"gt": 9_007_199_254_740_992_u64}}), true),
        (json!({"tags": ["a", "b"]}), true),
        (json!({"tags": ["b", "a"]}), false),
        (json!({"tags": {"eq": ["a", "b"]}}), true),
        (json!({"none": {"lte": 0}}), false),
        // And, or, not.
        (json!({"team": "red", "n": 5}), true),
        (json!({"team": "red", "n": 6}), false),
        (json!({"and": []}), true),
        (json!({"or": []}), false),
        (json!({"or": [{"n": 6}, {"team": "red"}]}), true),
        (json!({"and": [{"n": 5}, {"team": "blue"}]}), false),
        (json!({"not": {"n": 6}}), true),
        (json!({"not": {"team": "red", "n": 6}}), true),
        (json!({"n": 5, "or": [{"n": 1}, {"n": 2}]}), false),
        (json!({"n": 5, "not": {"team": "blue"}}), true),
    ];
    let metadata = metadata();
    for (filter, expected) in table {
        assert_eq!(parse(filter).unwrap().matches(&metadata), *expected, "{filter}");
    }
}

#[test]
fn metadata_may_be_anything() {
    for metadata in [Value::Null, json!([]), json!("x")] {
        assert!(!parse(&json!({"a.b": 1})).unwrap().matches(&metadata));
        assert!(parse(&json!({"a.b": {"exists": false}})).unwrap().matches(&metadata));
    }
    assert!(parse(&json!({"0.a": 1})).unwrap().matches(&json!([{"a": 1}])));
}

#[test]
fn what_is_not_understood_is_refused_by_name() {
    let wrong =
        |operator, wants, found| FilterError::WrongValue { path: "a.b".into(), operator, wants, found };
    let unknown =
        |operator: &str| FilterError::UnknownOperator { path: "a.b".into(), operator: operator.into() };
    let table: &[(Value, FilterError)] = &[
        (json!([]), FilterError::NotAnObject { found: "an array" }),
        (json!("x"), FilterError::NotAnObject { found: "a string" }),
        (json!({}), FilterError::Empty),
        (json!({"not": {}}), FilterError::Empty),
        (json!({"a": {}}), FilterError::Empty),
        (json!({"and": {}}), FilterError::NotAList { key: "and" }),
        (json!({"or": "x"}), FilterError::NotAList { key: "or" }),
        (json!({"or": [1]}), FilterError::NotAnObject { found: "a number" }),
        (json!({"not": [{"a": 1}]}), FilterError::NotAnObject { found: "an array" }),
        (json!({"a.b": {"equals": 1}}), unknown("equals")),
        (json!({"a.b": {"$eq": 1}}), unknown("$eq")),
        (json!({"a.b": {"eq": 1, "EQ": 1}}), unknown("EQ")),
        (json!({"a.b": {"in": 1}}), wrong("in", "an array", "a number")),
        (json!({"a.b": {"nin": {}}}), wrong("nin", "an array", "an object")),
        (json!({"a.b": {"exists": 1}}), wrong("exists", "true or false", "a number")),
        (json!({"a.b": {"gt": null}}), wrong("gt", "a number or a string", "null")),
        (json!({"a.b": {"lte": [1]}}), wrong("lte", "a number or a string", "an array")),
        (json!({"": 1}), FilterError::EmptyPath),
        (json!({"a..b": 1}), FilterError::EmptyPath),
        (json!({".a": 1}), FilterError::EmptyPath),
        (json!({"x".repeat(MAX_PATH + 1): 1}), FilterError::PathTooLong),
    ];
    for (filter, error) in table {
        assert_eq!(parse(filter).as_ref(), Err(error), "{filter}");
    }
    assert_eq!(
        unknown("equals").to_string(),
        "`a.b`: unknown operator `equals`; there are eq, ne, in, nin, exists, gt, gte, lt, lte"
    );
}

#[test]
fn depth_and_size_are_bounded() {
    let nested = |levels: usize| (1..levels).fold(json!({"a": 1}), |inner, _| json!({"not": inner}));
    assert!(parse(&nested(MAX_DEPTH)).is_ok());
    assert_eq!(parse(&nested(MAX_DEPTH + 1)), Err(FilterError::TooDeep));
    let many = |leaves: usize| json!({"or": vec![json!({"a": 1}); leaves]});
    assert!(parse(&many(MAX_PARTS - 1)).is_ok());
    assert_eq!(parse(&many(MAX_PARTS)), Err(FilterError::TooMany));
    let values = |values: usize| json!({"a": {"in": vec![1; values]}});
    assert!(parse(&values(MAX_PARTS)).is_ok());
    assert_eq!(parse(&values(MAX_PARTS + 1)), Err(FilterError::TooMany));
    assert_eq!(parse(&json!({"or": vec![json!({"and": []}); MAX_PARTS]})), Err(FilterError::TooMany));
}

fn filter() -> impl Strategy<Value = Value> {
    let value = prop_oneof![
        Just(json!(null)),
        Just(json!(true)),
        (-2i64..3).prop_map(|n| json!(n)),
        Just(json!(1.0)),
        "[ab]{0,2}".prop_map(|text| json!(text)),
    ];
    let ordered = prop_oneof![(-2i64..3).prop_map(|n| json!(n)), "[ab]{0,2}".prop_map(|text| json!(text))];
    let test = prop_oneof![
        value.clone().prop_map(|value| json!({"eq": value})),
        value.clone().prop_map(|value| json!({"ne": value})),
        prop::collection::vec(value.clone(), 0..3).prop_map(|values| json!({"in": values})),
        prop::collection::vec(value, 0..3).prop_map(|values| json!({"nin": values})),
        any::<bool>().prop_map(|exists| json!({"exists": exists})),
        (prop::sample::select(vec!["gt", "gte", "lt", "lte"]), ordered)
            .prop_map(|(operator, value)| json!({operator: value})),
    ];
    let leaf = ("[ab](\\.[ab])?", test).prop_map(|(path, test)| json!({path: test}));
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(|all| json!({"and": all})),
            prop::collection::vec(inner.clone(), 0..3).prop_map(|any| json!({"or": any})),
            inner.prop_map(|one| json!({"not": one})),
        ]
    })
}

fn some_metadata() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|flag| json!(flag)),
        (-2i64..3).prop_map(|n| json!(n)),
        "[ab]{0,2}".prop_map(|text| json!(text)),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop::collection::btree_map("[ab]", inner, 0..3).prop_map(|keys| json!(keys))
    })
}

proptest! {
    #[test]
    fn the_laws_of_logic_hold(a in filter(), b in filter(), metadata in some_metadata()) {
        let holds = |filter: Value| parse(&filter).unwrap().matches(&metadata);
        prop_assert_eq!(holds(json!({"not": {"not": a}})), holds(a.clone()));
        prop_assert_eq!(
            holds(json!({"not": {"and": [a, b]}})),
            holds(json!({"or": [{"not": a}, {"not": b}]}))
        );
        prop_assert_eq!(
            holds(json!({"not": {"or": [a, b]}})),
            holds(json!({"and": [{"not": a}, {"not": b}]}))
        );
    }

    #[test]
    fn operators_come_in_pairs(key in "[ab]", n in -2i64..3, metadata in some_metadata()) {
        let holds = |test: Value| parse(&json!({&key: test})).unwrap().matches(&metadata);
        prop_assert_ne!(holds(json!({"eq": n})), holds(json!({"ne": n})));
        prop_assert_ne!(holds(json!({"in": [n]})), holds(json!({"nin": [n]})));
        prop_assert_eq!(holds(json!({"eq": n})), holds(json!({"in": [n]})));
        prop_assert_eq!(holds(json!({"gte": n})), holds(json!({"gt": n})) || holds(json!({"eq": n})));
        prop_assert_eq!(holds(json!({"lte": n})), holds(json!({"lt": n})) || holds(json!({"eq": n})));
    }
}

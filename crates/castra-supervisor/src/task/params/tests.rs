//! Declarations, values and places as tables.

use super::*;
use castra_proto::task::Param;
use proptest::prelude::*;
use serde_json::json;

fn params(declared: Value) -> BTreeMap<String, Param> {
    serde_json::from_value(declared).unwrap()
}

fn values(given: Value) -> Values {
    serde_json::from_value(given).unwrap()
}

/// One of each kind.
fn each() -> BTreeMap<String, Param> {
    params(json!({
        "flag": {"kind": "boolean"},
        "one": {"kind": "one_of", "options": ["red", "blue", "a,b"]},
        "many": {"kind": "many_of", "options": ["en", "de", "a,b"]},
        "n": {"kind": "number"},
        "level": {"kind": "range", "min": 1, "max": 5, "step": 1},
        "share": {"kind": "range", "min": 0, "max": 1, "step": 0.1},
        "even": {"kind": "number", "step": 2},
        "word": {"kind": "text", "max_length": 4},
    }))
}

fn wrong(name: &str, why: Why) -> ParamError {
    ParamError { name: name.into(), why }
}

#[test]
fn values_are_taken_or_read() {
    let table: &[(&str, Value, Value)] = &[
        ("flag", json!(true), json!(true)),
        ("flag", json!("yes"), json!(true)),
        ("flag", json!("On"), json!(true)),
        ("flag", json!("0"), json!(false)),
        ("flag", json!("FALSE"), json!(false)),
        ("one", json!("red"), json!("red")),
        ("one", json!("a,b"), json!("a,b")),
        ("many", json!(["de", "en"]), json!(["de", "en"])),
        ("many", json!([]), json!([])),
        ("many", json!("en, de"), json!(["en", "de"])),
        ("many", json!("a,b"), json!(["a,b"])),
        ("many", json!(""), json!([])),
        ("n", json!(5), json!(5)),
        ("n", json!(-0.5), json!(-0.5)),
        ("n", json!("5"), json!(5)),
        ("n", json!(" -7 "), json!(-7)),
        ("n", json!("1e3"), json!(1000.0)),
        ("n", json!("18446744073709551615"), json!(u64::MAX)),
        ("level", json!(5), json!(5)),
        ("level", json!("1"), json!(1)),
        ("level", json!(2.0), json!(2.0)),
        ("share", json!(0.3), json!(0.3)),
        ("share", json!(1), json!(1)),
        ("even", json!(-4), json!(-4)),
        ("word", json!("äöüß"), json!("äöüß")),
        ("word", json!("5"), json!("5")),
        ("word", json!(""), json!("")),
    ];
    let each = each();
    declared(&each).unwrap();
    for (name, given, expected) in table {
        let checked = check(&each, &Values::from([((*name).to_owned(), given.clone())])).unwrap();
        assert_eq!(checked.get(*name), Some(expected), "{name} = {given}");
        assert_eq!(checked.len(), each.len(), "every declared one has a value");
    }
}

#[test]
fn values_are_refused_with_the_reason() {
    let kind = |wants, found| Why::Kind { wants, found };
    let none = |value: &str, options: &[&str]| Why::NoOption {
        value: value.into(),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
    };
    let table: &[(&str, Value, Why)] = &[
        ("flag", json!("maybe"), kind("true or false", "this text")),
        ("flag", json!(1), kind("true or false", "a number")),
        ("one", json!("green"), none("green", &["red", "blue", "a,b"])),
        ("one", json!(["red"]), kind("one of the options", "a list")),
        ("many", json!(["en", "fr"]), none("fr", &["en", "de", "a,b"])),
        ("many", json!("en,en"), Why::Twice { value: "en".into() }),
        ("many", json!("en,"), none("", &["en", "de", "a,b"])),
        ("many", json!([1]), kind("a list of options", "a number")),
        ("many", json!({}), kind("a list of options", "an object")),
        ("n", json!("five"), kind("a number", "this text")),
        ("n", json!("inf"), kind("a number", "this text")),
        ("n", json!("NaN"), kind("a number", "this text")),
        ("n", json!("1e999"), kind("a number", "this text")),
        ("n", json!(""), kind("a number", "this text")),
        ("n", json!(true), kind("a number", "a boolean")),
        ("level", json!(0), Why::TooSmall { min: "1".into() }),
        ("level", json!("6"), Why::TooLarge { max: "5".into() }),
        ("level", json!(1.5), Why::OffStep { step: "1".into(), from: "1".into() }),
        ("share", json!(0.35), Why::OffStep { step: "0.1".into(), from: "0".into() }),
        ("even", json!(3), Why::OffStep { step: "2".into(), from: "0".into() }),
        ("word", json!("fünf?"), Why::TooLong { length: 5, most: 4 }),
        ("word", json!(5), kind("a text", "a number")),
        ("gone", json!(1), Why::Unknown),
    ];
    for (name, given, why) in table {
        let errors = check(&each(), &Values::from([((*name).to_owned(), given.clone())])).unwrap_err();
        assert_eq!(errors, [wrong(name, why.clone())], "{name} = {given}");
    }
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let given = values(json!({"n": "x", "level": 9, "zzz": 1, "flag": true, "aaa": null}));
    let errors = check(&each(), &given).unwrap_err();
    let said: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "aaa: there is no such parameter",
            "level: it is more than 5",
            "n: a number is wanted, not this text",
            "zzz: there is no such parameter",
        ]
    );
}

#[test]
fn what_is_not_given_is_the_default_or_missing_or_nothing() {
    let declared = params(json!({
        "must": {"kind": "text", "required": true},
        "has": {"kind": "number", "required": true, "default": "7"},
        "may": {"kind": "text"},
    }));
    assert_eq!(check(&declared, &values(json!({}))), Err(vec![wrong("must", Why::Missing)]));
    assert_eq!(check(&declared, &values(json!({"must": null}))), Err(vec![wrong("must", Why::Missing)]));
    assert_eq!(
        check(&declared, &values(json!({"must": "x", "has": null}))),
        Ok(values(json!({"must": "x", "has": 7, "may": null})))
    );
}

#[test]
fn declarations_are_checked_too() {
    let foreign = |limit, kind| Why::Foreign { limit, kind };
    let lacks = |limit, kind| Why::Lacks { limit, kind };
    let table: &[(&str, Value, &[Why])] = &[
        ("a b", json!({"kind": "text"}), &[Why::Name]),
        ("", json!({"kind": "text"}), &[Why::Name]),
        ("ü", json!({"kind": "text"}), &[Why::Name]),
        ("p", json!({"kind": "one_of"}), &[lacks("options", "one_of")]),
        ("p", json!({"kind": "many_of", "options": ["a", "b", "a"]}), &[Why::Twice { value: "a".into() }]),
        ("p", json!({"kind": "range", "max": 1}), &[lacks("min", "range")]),
        ("p", json!({"kind": "range"}), &[lacks("min", "range"), lacks("max", "range")]),
        ("p", json!({"kind": "number", "min": 2, "max": 1, "step": 0}), &[Why::Reversed, Why::Step]),
        (
            "p",
            json!({"kind": "boolean", "options": ["a"], "min": 1, "max_length": 3}),
            &[foreign("options", "boolean"), foreign("min", "boolean"), foreign("max_length", "boolean")],
        ),
        (
            "p",
            json!({"kind": "text", "max": 1, "step": 1}),
            &[foreign("max", "text"), foreign("step", "text")],
        ),
        (
            "p",
            json!({"kind": "number", "max": 1, "default": 2}),
            &[Why::Default(Box::new(Why::TooLarge { max: "1".into() }))],
        ),
        ("p", json!({"kind": "number", "min": 1, "default": "3"}), &[]),
    ];
    for (name, param, expected) in table {
        let errors = declared(&params(json!({*name: param}))).err().unwrap_or_default();
        let expected: Vec<ParamError> = expected.iter().map(|why| wrong(name, why.clone())).collect();
        assert_eq!(errors, expected, "{param}");
    }
    let long = "x".repeat(MAX_NAME);
    assert_eq!(declared(&params(json!({&long: {"kind": "text"}}))), Ok(()));
    assert!(declared(&params(json!({format!("{long}x"): {"kind": "text"}}))).is_err());
}

#[test]
fn only_places_of_declared_parameters_are_replaced() {
    let values = values(json!({
        "who": "Ada", "n": 5, "share": 0.5, "on": true, "langs": ["en", "de"], "none": null, "trap": "{{who}} {{n}}",
        "a-b_C1": "x", "half": "{{wh",
    }));
    let table = [
        ("Hello {{who}}!", "Hello Ada!"),
        ("{{who}}{{who}}", "AdaAda"),
        ("{{n}} {{share}} {{on}} {{langs}} [{{none}}]", "5 0.5 true en, de []"),
        ("{{a-b_C1}}", "x"),
        (
            "{{gone}} {who} {{ who }} {{}} {{who} {who}} {{Who}}",
            "{{gone}} {who} {{ who }} {{}} {{who} {who}} {{Who}}",
        ),
        ("{{{who}}}", "{Ada}"),
        ("{{{{who}}}}", "{{Ada}}"),
        ("{{who}}}", "Ada}"),
        ("{\"a\": {\"b\": {}}}", "{\"a\": {\"b\": {}}}"),
        ("${{ secrets.who }} %{{who", "${{ secrets.who }} %{{who"),
        // What was inserted is not looked at.
        ("{{trap}}", "{{who}} {{n}}"),
        ("{{half}}o}}", "{{who}}"),
        ("ü{{who}}ü{{", "üAdaü{{"),
        ("", ""),
    ];
    for (text, expected) in table {
        assert_eq!(expand(text, &values), expected, "{text}");
    }
}

#[test]
fn in_json_a_place_alone_keeps_its_kind() {
    let values =
        values(json!({"who": "Ada", "n": 5, "on": false, "langs": ["en"], "none": null, "trap": "{{n}}"}));
    let before = json!({
        "n": "{{n}}", "text": "{{n}} of them", "on": "{{on}}", "langs": ["{{langs}}", "{{who}}"], "none": "{{none}}",
        "{{who}}": {"deep": [{"trap": "{{trap}}"}]}, "gone": "{{gone}}", "kept": [1, null, true], "two": "{{n}}{{n}}",
    });
    let after = json!({
        "n": 5, "text": "5 of them", "on": false, "langs": [["en"], "Ada"], "none": null,
        "{{who}}": {"deep": [{"trap": "{{n}}"}]}, "gone": "{{gone}}", "kept": [1, null, true], "two": "55",
    });
    assert_eq!(expand_value(&before, &values), after);
}

proptest! {
    #[test]
    fn without_places_a_text_is_itself(text in "[{}a-cü \n]{0,40}") {
        prop_assert_eq!(expand(&text, &Values::new()), text);
    }

    /// Every piece between places is kept, whatever it and the value are.
    #[test]
    fn around_places_nothing_changes(before in "[}a ]{0,9}", after in "[{a ]{0,9}", value in "[{}a]{0,9}") {
        let values = Values::from([("a".to_owned(), Value::from(value.clone()))]);
        prop_assert_eq!(expand(&format!("{before}{{{{a}}}}{after}"), &values), format!("{before}{value}{after}"));
    }
}

//! Whether a declaration makes sense. A limit that means nothing is refused, never ignored.

use super::check::fits;
use super::{MAX_NAME, ParamError, Why, is_name_char};
use castra_proto::task::{Param, ParamKind};
use std::collections::{BTreeMap, BTreeSet};

/// Everything that is wrong with a template's declarations, by name.
pub fn declared(params: &BTreeMap<String, Param>) -> Result<(), Vec<ParamError>> {
    let errors: Vec<ParamError> = (params.iter())
        .flat_map(|(name, param)| {
            wrong(name, param).into_iter().map(|why| ParamError { name: name.clone(), why })
        })
        .collect();
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn wrong(name: &str, param: &Param) -> Vec<Why> {
    let kind = param.kind.as_str();
    let (choice, number) = match param.kind {
        ParamKind::OneOf | ParamKind::ManyOf => (true, false),
        ParamKind::Number | ParamKind::Range => (false, true),
        ParamKind::Boolean | ParamKind::Text => (false, false),
    };
    let mut wrong = Vec::new();
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(is_name_char) {
        wrong.push(Why::Name);
    }
    let limits = [
        ("options", !param.options.is_empty(), choice),
        ("min", param.min.is_some(), number),
        ("max", param.max.is_some(), number),
        ("step", param.step.is_some(), number),
        ("max_length", param.max_length.is_some(), param.kind == ParamKind::Text),
    ];
    wrong.extend(
        (limits.iter())
            .filter(|(_, there, belongs)| *there && !belongs)
            .map(|(limit, ..)| Why::Foreign { limit, kind }),
    );
    let lacks = |limit| Why::Lacks { limit, kind };
    if choice && param.options.is_empty() {
        wrong.push(lacks("options"));
    }
    let mut seen = BTreeSet::new();
    let twice = param.options.iter().find(|option| !seen.insert(*option));
    wrong.extend(twice.map(|value| Why::Twice { value: value.clone() }));
    if param.kind == ParamKind::Range {
        wrong.extend(param.min.is_none().then(|| lacks("min")));
        wrong.extend(param.max.is_none().then(|| lacks("max")));
    }
    if number {
        if param.min.zip(param.max).is_some_and(|(min, max)| min > max) {
            wrong.push(Why::Reversed);
        }
        if param.step.is_some_and(|step| step <= 0.0) {
            wrong.push(Why::Step);
        }
    }
    // With limits that make sense only: the others explain nothing.
    if let (true, Some(default)) = (wrong.is_empty(), &param.default) {
        wrong.extend(fits(param, default).err().map(|why| Why::Default(Box::new(why))));
    }
    wrong
}

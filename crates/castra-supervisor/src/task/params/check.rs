//! What a launch gives, against what is declared: all errors at once, or every value.

use super::{ParamError, Values, Why};
use castra_proto::task::{Param, ParamKind};
use serde_json::{Number, Value};
use std::collections::{BTreeMap, BTreeSet};

/// The value of every declared parameter, or everything that is wrong with those given, by name. The declarations are
/// as [`super::declared`] wants them. `null` is no value.
pub fn check(params: &BTreeMap<String, Param>, given: &Values) -> Result<Values, Vec<ParamError>> {
    let mut errors = BTreeMap::new();
    let unknown = given.keys().filter(|name| !params.contains_key(*name));
    errors.extend(unknown.map(|name| (name.clone(), Why::Unknown)));
    let mut values = Values::new();
    for (name, param) in params {
        let given = given.get(name).filter(|value| !value.is_null());
        let value = match given.or(param.default.as_ref()) {
            Some(value) => fits(param, value),
            None if param.required => Err(Why::Missing),
            None => Ok(Value::Null),
        };
        match value {
            Ok(value) => drop(values.insert(name.clone(), value)),
            Err(why) => drop(errors.insert(name.clone(), why)),
        }
    }
    if errors.is_empty() {
        Ok(values)
    } else {
        Err(errors.into_iter().map(|(name, why)| ParamError { name, why }).collect())
    }
}

/// The value, typed, if the parameter allows it.
pub(super) fn fits(param: &Param, value: &Value) -> Result<Value, Why> {
    match param.kind {
        ParamKind::Boolean => boolean(value),
        ParamKind::OneOf => {
            let value = value.as_str().ok_or_else(|| kind("one of the options", value))?;
            option(param, value)
        }
        ParamKind::ManyOf => many(param, value),
        ParamKind::Number | ParamKind::Range => number(param, value),
        ParamKind::Text => text(param, value),
    }
}

fn boolean(value: &Value) -> Result<Value, Why> {
    let wrong = || kind("true or false", value);
    match value {
        Value::Bool(_) => Ok(value.clone()),
        Value::String(text) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Ok(Value::Bool(true)),
            "false" | "no" | "off" | "0" => Ok(Value::Bool(false)),
            _ => Err(wrong()),
        },
        _ => Err(wrong()),
    }
}

fn option(param: &Param, value: &str) -> Result<Value, Why> {
    if param.options.iter().any(|option| option == value) {
        return Ok(Value::from(value));
    }
    Err(Why::NoOption { value: value.chars().take(80).collect(), options: param.options.clone() })
}

fn many(param: &Param, value: &Value) -> Result<Value, Why> {
    let chosen: Vec<&str> = match value {
        Value::Array(items) => items
            .iter()
            .map(|item| item.as_str().ok_or_else(|| kind("a list of options", item)))
            .collect::<Result<_, _>>()?,
        // An option may have a comma in it.
        Value::String(text) if param.options.contains(text) => vec![text],
        Value::String(text) if text.trim().is_empty() => Vec::new(),
        Value::String(text) => text.split(',').map(str::trim).collect(),
        _ => return Err(kind("a list of options", value)),
    };
    let mut seen = BTreeSet::new();
    if let Some(value) = chosen.iter().find(|option| !seen.insert(**option)) {
        return Err(Why::Twice { value: (*value).to_owned() });
    }
    chosen.into_iter().map(|value| option(param, value)).collect::<Result<Vec<_>, _>>().map(Value::Array)
}

fn number(param: &Param, value: &Value) -> Result<Value, Why> {
    let wrong = || kind("a number", value);
    let number = match value {
        Value::Number(number) => number.clone(),
        Value::String(text) => read_number(text.trim()).ok_or_else(wrong)?,
        _ => return Err(wrong()),
    };
    let n = number.as_f64().ok_or_else(wrong)?;
    if let Some(min) = param.min.filter(|min| n < *min) {
        return Err(Why::TooSmall { min: min.to_string() });
    }
    if let Some(max) = param.max.filter(|max| n > *max) {
        return Err(Why::TooLarge { max: max.to_string() });
    }
    if let Some(step) = param.step {
        let from = param.min.unwrap_or(0.0);
        let steps = (n - from) / step;
        // 0.3 is three steps of 0.1 though no double says so.
        if (steps - steps.round()).abs() > 1e-9 * steps.abs().max(1.0) {
            return Err(Why::OffStep { step: step.to_string(), from: from.to_string() });
        }
    }
    Ok(Value::Number(number))
}

/// As JSON has them, with a `+` or zeros in front as people write them. Neither infinite nor no number.
fn read_number(text: &str) -> Option<Number> {
    if !text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b)) {
        return None;
    }
    let whole = text.parse::<i64>().map(Number::from).ok();
    whole
        .or_else(|| text.parse::<u64>().map(Number::from).ok())
        .or_else(|| Number::from_f64(text.parse().ok()?))
}

fn text(param: &Param, value: &Value) -> Result<Value, Why> {
    let text = value.as_str().ok_or_else(|| kind("a text", value))?;
    let length = text.chars().count() as u64;
    match param.max_length.filter(|most| length > *most) {
        Some(most) => Err(Why::TooLong { length, most }),
        None => Ok(value.clone()),
    }
}

fn kind(wants: &'static str, value: &Value) -> Why {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "this text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    Why::Kind { wants, found }
}

//! Fields of a JSON value, read leniently: what is missing or of another type is absent, never an error.

use serde_json::Value;
use std::str::FromStr;
use uuid::Uuid;

pub(crate) fn text<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name)?.as_str()
}

pub(crate) fn string(value: &Value, name: &str) -> Option<String> {
    text(value, name).map(str::to_owned)
}

pub(crate) fn uuid(value: &Value, name: &str) -> Option<Uuid> {
    Uuid::parse_str(text(value, name)?).ok()
}

/// A number, also one that is written as a string.
pub(crate) fn number<T: TryFrom<u64> + FromStr>(value: &Value, name: &str) -> Option<T> {
    match value.get(name)? {
        Value::Number(number) => {
            let whole = number.as_u64().or_else(|| number.as_f64().map(|float| float as u64))?;
            T::try_from(whole).ok()
        }
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

pub(crate) fn flag(value: &Value, name: &str) -> bool {
    value.get(name).and_then(Value::as_bool).unwrap_or(false)
}

pub(crate) fn items<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A list of strings; of objects the `name` of each.
pub(crate) fn strings(value: &Value, name: &str) -> Vec<String> {
    let names = items(value, name).iter().filter_map(|item| item.as_str().or_else(|| text(item, "name")));
    names.map(str::to_owned).collect()
}

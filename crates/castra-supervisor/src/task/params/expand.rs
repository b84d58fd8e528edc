//! Values into texts: `{{name}}` of a declared parameter, nothing else. Refuses to look into what it inserts.
//!
//! Other braces are text, `{{name}}` of what is not declared too. In a text, options of `many_of` stand with commas
//! between them and a missing value is nothing.

use super::{MAX_NAME, Values, is_name_char};
use serde_json::Value;

/// `text` with the values in it.
pub fn expand(text: &str, values: &Values) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("{{") {
        let (before, here) = rest.split_at(at);
        out.push_str(before);
        match place(here).and_then(|(name, after)| Some((values.get(name)?, after))) {
            Some((value, after)) => {
                write(&mut out, value);
                rest = after;
            }
            None => {
                // `{{{name}}}` is a place in braces: one step, not two.
                out.push('{');
                rest = here.get(1..).unwrap_or_default();
            }
        }
    }
    out.push_str(rest);
    out
}

/// `value` with the values in all its strings. A string that is nothing but a place becomes the value with its kind.
/// Keys of objects stay as they are.
pub fn expand_value(value: &Value, values: &Values) -> Value {
    match value {
        Value::String(text) => match place(text) {
            Some((name, "")) if values.contains_key(name) => values.get(name).cloned().unwrap_or_default(),
            _ => Value::String(expand(text, values)),
        },
        Value::Array(items) => items.iter().map(|item| expand_value(item, values)).collect(),
        Value::Object(keys) => {
            keys.iter().map(|(key, value)| (key.clone(), expand_value(value, values))).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

/// The name of the place that `text` begins with, and what follows it.
fn place(text: &str) -> Option<(&str, &str)> {
    let text = text.strip_prefix("{{")?;
    let end = text.bytes().take(MAX_NAME + 1).take_while(|byte| is_name_char(char::from(*byte))).count();
    let (name, rest) = text.split_at(end);
    Some((name, rest.strip_prefix("}}")?))
}

fn write(out: &mut String, value: &Value) {
    match value {
        Value::Null => {}
        Value::String(text) => out.push_str(text),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                write(out, item);
            }
        }
        value => out.push_str(&value.to_string()),
    }
}

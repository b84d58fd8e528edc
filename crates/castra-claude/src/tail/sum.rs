//! Usage of several messages as one. Refuses to know the names of the counters.

use serde_json::{Map, Value};

/// Adds `one` to `total`: numbers are summed wherever they stand, of anything else the newest counts.
pub(super) fn add(total: &mut Value, one: &Value) {
    match (&mut *total, one) {
        (Value::Object(total), Value::Object(one)) => add_fields(total, one),
        (Value::Number(sum), Value::Number(number)) => match (sum.as_u64(), number.as_u64()) {
            (Some(sum), Some(number)) => *total = Value::from(sum.saturating_add(number)),
            _ => {
                let sum = sum.as_f64().unwrap_or_default() + number.as_f64().unwrap_or_default();
                *total = Value::from(sum);
            }
        },
        (_, Value::Null) => {}
        (total, one) => *total = one.clone(),
    }
}

fn add_fields(total: &mut Map<String, Value>, one: &Map<String, Value>) {
    for (name, value) in one {
        match total.get_mut(name) {
            Some(total) => add(total, value),
            None => drop(total.insert(name.clone(), value.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn counters_are_summed_and_words_are_the_newest() {
        let mut total = json!({});
        for one in [
            json!({"input_tokens": 1, "cache": {"1h": 2}, "tier": "a", "iterations": [1], "x": null}),
            json!({"input_tokens": 3, "cache": {"1h": 4, "5m": 1}, "tier": "b", "iterations": [2], "x": 0.5}),
            json!({"input_tokens": u64::MAX, "tier": null, "x": 1}),
        ] {
            if one.is_object() {
                add(&mut total, &one);
            }
        }
        let sum = json!({"input_tokens": u64::MAX, "cache": {"1h": 6, "5m": 1}, "tier": "b", "iterations": [2], "x": 1.5});
        assert_eq!(total, sum);
    }
}

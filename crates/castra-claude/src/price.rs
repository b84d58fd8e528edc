//! What a turn costs by claude's own price list, for terminal sessions, whose transcripts have no cost.
//!
//! Measured, not published: US dollars that `claude -p --output-format json` reported for 100,000 tokens of each kind
//! (2.1.329; where 2.1.197 differs it is the newer list that counts). The CLI books a model that it does not know at
//! its newest opus's price; here such a model has none, so that no figure is made up.

use crate::field::number;
use serde_json::Value;

/// US dollars for a million tokens.
struct Price {
    input: f64,
    output: f64,
    cache_write: f64,
    cache_read: f64,
}

/// The first name that a model's id begins with counts.
const PRICES: [(&str, Price); 12] = [
    ("claude-fable-5", price(10.0, 50.0, 12.5, 1.0)),
    ("claude-opus-5-5", price(4.0, 20.0, 5.0, 0.2)),
    ("claude-opus-5", price(5.0, 25.0, 6.25, 0.5)),
    ("claude-opus-4-", price(5.0, 25.0, 6.25, 0.5)),
    ("claude-sonnet-5-5", price(2.0, 10.0, 2.5, 0.1)),
    ("claude-sonnet-5", price(2.0, 10.0, 2.5, 0.2)),
    ("claude-sonnet-4-", price(3.0, 15.0, 3.75, 0.3)),
    ("claude-3-7-sonnet", price(3.0, 15.0, 3.75, 0.3)),
    ("claude-haiku-5-5", price(0.1, 0.5, 0.125, 0.01)),
    ("claude-haiku-4-5", price(1.0, 5.0, 1.25, 0.1)),
    ("claude-3-5-haiku", price(0.8, 4.0, 1.0, 0.08)),
    ("claude-haiku-4", price(1.0, 5.0, 1.25, 0.1)),
];

const fn price(input: f64, output: f64, cache_write: f64, cache_read: f64) -> Price {
    Price { input, output, cache_write, cache_read }
}

/// US dollars of one answer of `model`. None: the model is not on the list.
pub fn cost_usd(model: &str, usage: &Value) -> Option<f64> {
    let (_, price) = PRICES.iter().find(|(name, _)| model.starts_with(name))?;
    let tokens = |name| number::<u64>(usage, name).unwrap_or(0) as f64;
    let dollars = tokens("input_tokens") * price.input
        + tokens("output_tokens") * price.output
        + tokens("cache_creation_input_tokens") * price.cache_write
        + tokens("cache_read_input_tokens") * price.cache_read;
    Some(dollars / 1_000_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_kind_of_token_has_its_price() {
        for (model, usage, dollars) in [
            ("claude-opus-4-8", json!({"input_tokens": 100_000}), Some(0.5)),
            ("claude-opus-4-8[1m]", json!({"output_tokens": 100_000}), Some(2.5)),
            ("claude-sonnet-5", json!({"cache_creation_input_tokens": 100_000}), Some(0.25)),
            ("claude-haiku-4-5-20251001", json!({"cache_read_input_tokens": 100_000}), Some(0.01)),
            ("claude-opus-5-5", json!({"input_tokens": 500_000, "output_tokens": 100_000}), Some(4.0)),
            ("claude-opus-4-8", json!({}), Some(0.0)),
            ("nonsense", json!({"input_tokens": 100_000}), None),
            ("<synthetic>", json!({}), None),
        ] {
            assert_eq!(cost_usd(model, &usage), dollars, "{model} {usage}");
        }
    }
}

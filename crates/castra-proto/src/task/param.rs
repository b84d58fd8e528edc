//! Parameters that a task template declares. Refuses values: what a launch gives is checked by the supervisor.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A parameter, beneath its name: letters, digits, `_` and `-`, at most 64 of them. Limits belong to some kinds only
/// and are refused elsewhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Param {
    pub kind: ParamKind,
    /// What a form calls it; its name when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Its value where a launch gives none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// A launch must give a value, unless there is a default.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub required: bool,
    /// Of `one_of` and `many_of`: what there is to choose from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// Of `number` and `range`, which must have it: the smallest value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// Of `number` and `range`, which must have it: the largest value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// Of `number` and `range`: values are this far apart, from `min` on, or from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<f64>,
    /// Of `text`: characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_length: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ParamKind {
    Boolean,
    /// One of `options`.
    OneOf,
    /// Some of `options`, each once; or none.
    ManyOf,
    Number,
    /// A number between `min` and `max`.
    Range,
    Text,
}

impl ParamKind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::OneOf => "one_of",
            Self::ManyOf => "many_of",
            Self::Number => "number",
            Self::Range => "range",
            Self::Text => "text",
        }
    }
}

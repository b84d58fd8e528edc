//! Parameters of a task template: whether they are declared well, what a launch gives for them, and where the values
//! go. Refuses to look at anything else of a task.
//!
//! Values of the right kind are taken as they are. A string is read as its parameter's kind says, as a command line has
//! nothing else: `true/yes/on/1` and `false/no/off/0`, numbers, and `many_of` as options with commas between them.

mod check;
mod declare;
mod expand;

pub use check::check;
pub use declare::declared;
pub use expand::{expand, expand_value};

use serde_json::Value;
use std::collections::BTreeMap;

/// Every declared parameter's value; `null` where there is none.
pub type Values = BTreeMap<String, Value>;

/// What is wrong with one parameter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {why}")]
pub struct ParamError {
    pub name: String,
    pub why: Why,
}

/// Of a value, or of a declaration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    #[error("there is no such parameter")]
    Unknown,
    #[error("a value is needed")]
    Missing,
    #[error("{wants} is wanted, not {found}")]
    Kind { wants: &'static str, found: &'static str },
    #[error("`{value}` is none of {}", options.join(", "))]
    NoOption { value: String, options: Vec<String> },
    #[error("`{value}` is chosen twice")]
    Twice { value: String },
    #[error("it is less than {min}")]
    TooSmall { min: String },
    #[error("it is more than {max}")]
    TooLarge { max: String },
    #[error("it is not a whole number of steps of {step} from {from}")]
    OffStep { step: String, from: String },
    #[error("it has {length} characters; {most} are allowed")]
    TooLong { length: u64, most: u64 },
    #[error("a name is letters, digits, `_` and `-`, at most {MAX_NAME} of them")]
    Name,
    #[error("`{limit}` means nothing for {kind}; leave it out")]
    Foreign { limit: &'static str, kind: &'static str },
    #[error("{kind} needs `{limit}`")]
    Lacks { limit: &'static str, kind: &'static str },
    #[error("`min` is more than `max`")]
    Reversed,
    #[error("`step` is to be more than 0")]
    Step,
    #[error("its default is not allowed: {0}")]
    Default(Box<Why>),
}

/// Characters of a name.
pub const MAX_NAME: usize = 64;

/// Whether `{{name}}` is looked for.
fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}

#[cfg(test)]
mod tests;

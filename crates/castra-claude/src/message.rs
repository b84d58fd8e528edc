//! One message of claude's as its users ask about it: texts, tools, cost, whether it truly succeeded.

use serde_json::Value;

/// A view of one line. Made once, asked often.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    line: &'a [u8],
    value: Value,
}

impl<'a> Message<'a> {
    /// None: not a JSON object.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(line).ok()?;
        value.is_object().then_some(Self { line, value })
    }

    /// The original bytes.
    pub fn line(&self) -> &'a [u8] {
        self.line
    }

    pub fn value(&self) -> &Value {
        &self.value
    }
}

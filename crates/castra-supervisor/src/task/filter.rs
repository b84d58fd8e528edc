//! Filters over metadata: which of many tasks are meant. Refuses to guess: unknown operators are refused by name, and
//! values of different kinds never match.
//!
//! | filter | matches |
//! |---|---|
//! | `{"and": [f, …]}`, `{"or": [f, …]}`, `{"not": f}` | all, any, not; `and` of nothing matches, `or` of nothing does not |
//! | `{"path.to.key": {"eq": v}}` | the value at that path; `eq ne in nin exists gt gte lt lte` |
//! | `{"key": v}` | as `{"key": {"eq": v}}`, for every `v` that is no object |
//! | several keys or several operators in one object | all of them |
//!
//! A path goes through objects by name and through arrays by index; a key that has dots in it is found as a whole
//! where it stands at the top; keys named `and`, `or` and `not` cannot be asked for there. Numbers compare as numbers (`1` equals `1.0`), strings by code points; `gt` and its like
//! know numbers and strings only. Where there is no value nothing is equal to it: `ne` and `nin` match, `eq null` does
//! not, `{"exists": false}` does. Operators: facts/optio.md §1f.

use serde_json::{Map, Number, Value};
use std::cmp::Ordering;

/// Levels of `and`, `or` and `not`.
pub const MAX_DEPTH: usize = 16;
/// Comparisons, values of `in`, and each `and`, `or` and `not`.
pub const MAX_PARTS: usize = 256;
/// Bytes of a path.
pub const MAX_PATH: usize = 512;

/// A filter that was understood.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    And(Vec<Filter>),
    Or(Vec<Filter>),
    Not(Box<Filter>),
    Leaf {
        /// With dots.
        path: String,
        test: Test,
    },
}

/// What is asked of one value.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    Eq(Value),
    Ne(Value),
    In(Vec<Value>),
    Nin(Vec<Value>),
    Exists(bool),
    Gt(Value),
    Gte(Value),
    Lt(Value),
    Lte(Value),
}

/// Why a filter is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    #[error("a filter is an object, not {found}")]
    NotAnObject { found: &'static str },
    #[error("`{key}` wants an array of filters")]
    NotAList { key: &'static str },
    #[error("an empty object is no filter; `{{\"and\": []}}` matches everything")]
    Empty,
    #[error("a path is missing: its key is empty or has an empty step")]
    EmptyPath,
    #[error("`{path}`: unknown operator `{operator}`; there are eq, ne, in, nin, exists, gt, gte, lt, lte")]
    UnknownOperator { path: String, operator: String },
    #[error("`{path}`: `{operator}` wants {wants}, not {found}")]
    WrongValue { path: String, operator: &'static str, wants: &'static str, found: &'static str },
    #[error("a filter may be {MAX_DEPTH} levels deep")]
    TooDeep,
    #[error("a filter may have {MAX_PARTS} parts: comparisons, values of `in`, `and`, `or` and `not`")]
    TooMany,
    #[error("a path may be {MAX_PATH} bytes long")]
    PathTooLong,
}

/// Understands a filter, or says what about it is not understood.
pub fn parse(filter: &Value) -> Result<Filter, FilterError> {
    Parser { parts: 0 }.filter(filter, 0)
}

struct Parser {
    parts: usize,
}

impl Parser {
    fn filter(&mut self, filter: &Value, depth: usize) -> Result<Filter, FilterError> {
        let Value::Object(keys) = filter else {
            return Err(FilterError::NotAnObject { found: kind(filter) });
        };
        if depth >= MAX_DEPTH {
            return Err(FilterError::TooDeep);
        }
        let mut all = Vec::new();
        for (key, value) in keys {
            if matches!(key.as_str(), "and" | "or" | "not") {
                self.count(1)?;
            }
            match key.as_str() {
                "and" => all.push(Filter::And(self.list("and", value, depth)?)),
                "or" => all.push(Filter::Or(self.list("or", value, depth)?)),
                "not" => all.push(Filter::Not(Box::new(self.filter(value, depth + 1)?))),
                path => self.leaf(path, value, &mut all)?,
            }
        }
        match all.len() {
            0 => Err(FilterError::Empty),
            1 => all.pop().ok_or(FilterError::Empty),
            _ => Ok(Filter::And(all)),
        }
    }

    fn count(&mut self, parts: usize) -> Result<(), FilterError> {
        self.parts += parts;
        if self.parts > MAX_PARTS { Err(FilterError::TooMany) } else { Ok(()) }
    }

    fn list(&mut self, key: &'static str, value: &Value, depth: usize) -> Result<Vec<Filter>, FilterError> {
        let Value::Array(filters) = value else { return Err(FilterError::NotAList { key }) };
        filters.iter().map(|filter| self.filter(filter, depth + 1)).collect()
    }

    fn leaf(&mut self, path: &str, value: &Value, all: &mut Vec<Filter>) -> Result<(), FilterError> {
        if path.split('.').any(str::is_empty) {
            return Err(FilterError::EmptyPath);
        }
        if path.len() > MAX_PATH {
            return Err(FilterError::PathTooLong);
        }
        let mut add = |test: Test| {
            self.count(match &test {
                Test::In(values) | Test::Nin(values) => values.len().max(1),
                _ => 1,
            })?;
            all.push(Filter::Leaf { path: path.to_owned(), test });
            Ok(())
        };
        match value {
            Value::Object(operators) if operators.is_empty() => Err(FilterError::Empty),
            Value::Object(operators) => {
                operators.iter().try_for_each(|(operator, value)| add(test(path, operator, value)?))
            }
            value => add(Test::Eq(value.clone())),
        }
    }
}

fn test(path: &str, operator: &str, value: &Value) -> Result<Test, FilterError> {
    let wrong = |operator, wants| FilterError::WrongValue {
        path: path.to_owned(),
        operator,
        wants,
        found: kind(value),
    };
    let list = |operator| value.as_array().cloned().ok_or_else(|| wrong(operator, "an array"));
    let ordered = |operator| match value {
        Value::Number(_) | Value::String(_) => Ok(value.clone()),
        _ => Err(wrong(operator, "a number or a string")),
    };
    Ok(match operator {
        "eq" => Test::Eq(value.clone()),
        "ne" => Test::Ne(value.clone()),
        "in" => Test::In(list("in")?),
        "nin" => Test::Nin(list("nin")?),
        "exists" => Test::Exists(value.as_bool().ok_or_else(|| wrong("exists", "true or false"))?),
        "gt" => Test::Gt(ordered("gt")?),
        "gte" => Test::Gte(ordered("gte")?),
        "lt" => Test::Lt(ordered("lt")?),
        "lte" => Test::Lte(ordered("lte")?),
        _ => {
            return Err(FilterError::UnknownOperator {
                path: path.to_owned(),
                operator: operator.to_owned(),
            });
        }
    })
}

impl Filter {
    /// Whether these metadata are meant.
    pub fn matches(&self, metadata: &Value) -> bool {
        match self {
            Filter::And(all) => all.iter().all(|filter| filter.matches(metadata)),
            Filter::Or(any) => any.iter().any(|filter| filter.matches(metadata)),
            Filter::Not(filter) => !filter.matches(metadata),
            Filter::Leaf { path, test } => test.holds(find(metadata, path)),
        }
    }
}

impl Filter {
    /// The path of every comparison.
    pub fn paths(&self) -> Vec<&str> {
        match self {
            Filter::And(parts) | Filter::Or(parts) => parts.iter().flat_map(Filter::paths).collect(),
            Filter::Not(part) => part.paths(),
            Filter::Leaf { path, .. } => vec![path],
        }
    }
}

impl Test {
    fn holds(&self, found: Option<&Value>) -> bool {
        let is = |value: &Value| found.is_some_and(|found| equal(found, value));
        let order = |value: &Value| found.and_then(|found| compare(found, value));
        match self {
            Test::Eq(value) => is(value),
            Test::Ne(value) => !is(value),
            Test::In(values) => values.iter().any(is),
            Test::Nin(values) => !values.iter().any(is),
            Test::Exists(wanted) => found.is_some() == *wanted,
            Test::Gt(value) => order(value).is_some_and(Ordering::is_gt),
            Test::Gte(value) => order(value).is_some_and(Ordering::is_ge),
            Test::Lt(value) => order(value).is_some_and(Ordering::is_lt),
            Test::Lte(value) => order(value).is_some_and(Ordering::is_le),
        }
    }
}

fn find<'a>(metadata: &'a Value, path: &str) -> Option<&'a Value> {
    if let Some(whole) = metadata.get(path) {
        return Some(whole);
    }
    path.split('.').try_fold(metadata, |at, step| match at {
        Value::Object(keys) => keys.get(step),
        // "01" and "+1" are no indices.
        Value::Array(items) => {
            step.parse::<usize>().ok().filter(|index| index.to_string() == step).and_then(|i| items.get(i))
        }
        _ => None,
    })
}

/// Equal as JSON, with numbers by value.
fn equal(a: &Value, b: &Value) -> bool {
    let maps = |a: &Map<String, Value>, b: &Map<String, Value>| {
        a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| equal(a, b)))
    };
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => numbers(a, b).is_some_and(Ordering::is_eq),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => maps(a, b),
        (a, b) => a == b,
    }
}

fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => numbers(a, b),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

/// Whole numbers exactly, beyond what a double can tell apart; an integer and a fraction as doubles.
fn numbers(a: &Number, b: &Number) -> Option<Ordering> {
    let whole = |n: &Number| n.as_i64().map(i128::from).or_else(|| n.as_u64().map(i128::from));
    match (whole(a), whole(b)) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;

//! A cron expression's fields, one by one, so that an error names the one that is meant. Refuses time zones.

use super::CronError;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::date;

pub(super) struct Parsed {
    pub(super) cron: Cron,
    /// The hour field does not begin with `*`.
    pub(super) named: bool,
}

struct Field {
    name: &'static str,
    allowed: &'static str,
    /// croner replaces names wherever it finds them: `JANFEB` would be December, and `MON` an hour.
    names: &'static [&'static str],
    /// Letters and signs beside names, digits and `*,-/`.
    marks: &'static str,
}

const FIELDS: [Field; 6] = [
    Field { name: "second", allowed: "0 to 59, with `*`, `,`, `-` and `/`", names: &[], marks: "" },
    Field { name: "minute", allowed: "0 to 59, with `*`, `,`, `-` and `/`", names: &[], marks: "" },
    Field { name: "hour", allowed: "0 to 23, with `*`, `,`, `-` and `/`", names: &[], marks: "" },
    Field {
        name: "day",
        allowed: "1 to 31, `L` or `15W`, with `*`, `,`, `-` and `/`",
        names: &[],
        marks: "LW?",
    },
    Field {
        name: "month",
        allowed: "1 to 12 or JAN to DEC, with `*`, `,`, `-` and `/`",
        names: &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"],
        marks: "",
    },
    Field {
        name: "weekday",
        allowed: "0 to 7 (0 and 7 are Sunday) or MON to SUN, `5L` or `MON#1`, with `*`, `,`, `-` and `/`",
        names: &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"],
        marks: "L#?",
    },
];

impl Field {
    /// What croner does not look at.
    fn spelled(&self, value: &str) -> bool {
        let value = value.to_ascii_uppercase();
        let known = |c: char| c.is_ascii_digit() || self.marks.contains(c);
        let word = |word: &str| {
            let rest = self.names.iter().find_map(|name| word.strip_prefix(name)).unwrap_or(word);
            rest.chars().all(known)
                && (rest.len() == word.len() || !rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        value.split(',').all(|part| !part.is_empty())
            && value.split([',', '-', '/']).all(|part| part == "*" || word(part))
    }
}

const NICKNAMES: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

pub(super) fn parse(expression: &str) -> Result<Parsed, CronError> {
    let expression = expression.trim();
    let expression = match NICKNAMES.iter().find(|(name, _)| *name == expression) {
        Some((_, stands_for)) => stands_for,
        None if expression.starts_with('@') => {
            return Err(CronError::Nickname { name: expression.to_owned() });
        }
        None => expression,
    };
    let mut fields: Vec<&str> = expression.split_whitespace().collect();
    match fields.len() {
        5 => fields.insert(0, "0"),
        6 => {}
        found => return Err(CronError::Fields { found }),
    }
    for (index, (value, field)) in fields.iter().zip(FIELDS).enumerate() {
        // The field by itself: croner does not say which one it stumbled over.
        let mut alone = ["*"; 6];
        if let Some(place) = alone.get_mut(index) {
            *place = value;
        }
        if !field.spelled(value) || read(&alone).is_none() {
            let Field { name: field, allowed, .. } = field;
            return Err(CronError::Field { field, value: (*value).to_owned(), allowed });
        }
    }
    let cron = read(&fields).ok_or(CronError::Never)?;
    // Every day there is comes within 400 years.
    if cron.find_next_occurrence(&date(2000, 1, 1).at(0, 0, 0, 0), true).is_err() {
        return Err(CronError::Never);
    }
    let named = !fields.get(2).is_some_and(|hour| hour.starts_with('*'));
    Ok(Parsed { cron, named })
}

fn read(fields: &[&str]) -> Option<Cron> {
    let parser = CronParser::builder().seconds(Seconds::Required).year(Year::Disallowed).build();
    parser.parse(&fields.join(" ")).ok()
}

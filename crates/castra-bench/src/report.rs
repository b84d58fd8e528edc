//! Figures with their goals, and the table of them.

/// One line of the table.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) figure: &'static str,
    pub(crate) what: String,
    pub(crate) measured: String,
    pub(crate) goal: &'static str,
    /// None: no goal, context for another row.
    pub(crate) met: Option<bool>,
}

/// A figure with an upper bound.
pub(crate) fn at_most(
    figure: &'static str,
    what: impl Into<String>,
    value: f64,
    bound: f64,
    unit: &str,
    goal: &'static str,
) -> Row {
    row(figure, what, format!("{} {unit}", short(value)), goal, Some(value <= bound))
}

pub(crate) fn at_least(
    figure: &'static str,
    what: impl Into<String>,
    value: f64,
    bound: f64,
    unit: &str,
    goal: &'static str,
) -> Row {
    row(figure, what, format!("{} {unit}", short(value)), goal, Some(value >= bound))
}

/// Context.
pub(crate) fn fact(figure: &'static str, what: impl Into<String>, value: f64, unit: &str) -> Row {
    row(figure, what, format!("{} {unit}", short(value)), "", None)
}

pub(crate) fn row(
    figure: &'static str,
    what: impl Into<String>,
    measured: String,
    goal: &'static str,
    met: Option<bool>,
) -> Row {
    let row = Row { figure, what: what.into(), measured: measured.trim().to_owned(), goal, met };
    progress(&format!("  {}: {} ({}){}", row.what, row.measured, row.goal, verdict(row.met)));
    row
}

fn verdict(met: Option<bool>) -> &'static str {
    match met {
        Some(true) => " met",
        Some(false) => " **missed**",
        None => "",
    }
}

/// Three digits that mean something.
pub(crate) fn short(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_once('.').map_or((text.as_str(), ""), |(whole, rest)| (whole, rest));
    let mut grouped = String::new();
    for (n, char) in whole.chars().enumerate() {
        if n > 0 && (whole.len() - n).is_multiple_of(3) && char.is_ascii_digit() && !grouped.ends_with('-') {
            grouped.push(' ');
        }
        grouped.push(char);
    }
    if rest.is_empty() { grouped } else { format!("{grouped}.{rest}") }
}

/// Markdown.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut out = String::from("| figure | what | measured | goal | |\n|---|---|---|---|---|\n");
    for row in rows {
        let met = verdict(row.met).trim();
        out += &format!("| {} | {} | {} | {} | {met} |\n", row.figure, row.what, row.measured, row.goal);
    }
    out
}

pub(crate) fn progress(text: &str) {
    eprintln!("{text}");
}

/// The middle one; of an even number the lower.
pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value below which this share of them lies; 0 for none.
pub(crate) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    sorted.get(((last as f64) * share).floor() as usize).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_grouped() {
        let table =
            [(0.1234, "0.123"), (1.5, "1.50"), (12.34, "12.3"), (999.6, "1 000"), (1234567.0, "1 234 567")];
        for (value, text) in table {
            assert_eq!(short(value), text);
        }
        assert_eq!(short(-123456.0), "-123 456");
    }

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let values = [5.0, 1.0, 3.0, 2.0, 4.0];
        assert_eq!((median(&values), quantile(&values, 0.99), quantile(&values, 1.0)), (3.0, 4.0, 5.0));
        assert_eq!((median(&[2.0, 1.0]), median(&[])), (1.0, 0.0));
    }
}

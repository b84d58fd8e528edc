//! Which known word a mistyped one may stand for. Pure.

/// The known word that is nearest, when it is near enough to be meant.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = known.into_iter().map(|known| (distance(word, known), known)).min()?;
    // A third of the word may be wrong; of a short one, one letter or two that changed places.
    (near.0 <= (word.chars().count() / 3).clamp(1, 3).max(usize::from(word.len() > 3) * 2)).then_some(near.1)
}

/// Letters that must be put in, left out or replaced to make the one of the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_understood_and_another_word_is_not() {
        let known = ["instructions", "session", "name", "retries", "timeout_s", "mode"];
        let table = [
            ("instuctions", Some("instructions")),
            ("Instructions", Some("instructions")),
            ("nmae", Some("name")),
            ("timeout", Some("timeout_s")),
            ("modes", Some("mode")),
            ("prompt", None),
            ("x", None),
            ("", None),
        ];
        for (word, expected) in table {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
        assert_eq!(nearest("a", []), None);
    }
}

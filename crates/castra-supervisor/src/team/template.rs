//! Texts with the names of answers in them. Pure. Whatever braces do not hold a known name are text.

use std::collections::BTreeMap;

/// What names stand for.
pub(crate) type Values = BTreeMap<String, String>;

/// The name of what is given on, or of what a flow was run with.
pub(crate) const MESSAGE: &str = "message";

/// The text with every `{name}` of `values` replaced. What is put in is not read again.
pub(crate) fn fill(text: &str, values: &Values) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        out.push_str(&rest[..open]);
        rest = &rest[open..];
        let known = rest[1..].find('}').and_then(|end| Some((values.get(&rest[1..=end])?, end + 2)));
        match known {
            Some((value, length)) => {
                out.push_str(value);
                rest = &rest[length..];
            }
            None => {
                out.push('{');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// Whether the text has this name in braces.
pub(crate) fn names(text: &str, name: &str) -> bool {
    text.contains(&format!("{{{name}}}"))
}

/// An answer in its wrapping.
pub(crate) fn wrapped(wrap: Option<&str>, message: &str) -> String {
    let values = Values::from([(MESSAGE.to_owned(), message.to_owned())]);
    wrap.map_or_else(|| message.to_owned(), |wrap| fill(wrap, &values))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_names_are_replaced_and_once() {
        let values = Values::from(
            [("message", "{draft} {message}"), ("draft", "D"), ("a.b", "X")]
                .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        for (text, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("{draft}", "D"),
            ("say {draft}, {a.b}!", "say D, X!"),
            ("{message}", "{draft} {message}"),
            ("{{draft}}", "{D}"),
            ("{\"json\": {draft}}", "{\"json\": D}"),
            ("fn f() { {draft} }", "fn f() { D }"),
            ("{unknown} {} { {0} {draft", "{unknown} {} { {0} {draft"),
            ("{ draft }", "{ draft }"),
            ("{é}{draft}é}", "{é}Dé}"),
        ] {
            assert_eq!(fill(text, &values), expected, "{text}");
        }
    }

    #[test]
    fn an_answer_is_given_on_bare_or_in_its_wrapping() {
        for (wrap, expected) in [
            (None, "a {message}"),
            (Some("Judge {this}: {message}"), "Judge {this}: a {message}"),
            (Some("{0} {message} {message}"), "{0} a {message} a {message}"),
            (Some("nothing of it"), "nothing of it"),
        ] {
            assert_eq!(wrapped(wrap, "a {message}"), expected);
        }
    }
}

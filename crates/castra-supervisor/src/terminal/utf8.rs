//! Bytes to text, cut anywhere: a character that is not whole yet waits, one that never can be is U+FFFD.

/// The beginning of a character whose end has not come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Utf8 {
    held: [u8; 3],
    len: u8,
}

impl Utf8 {
    pub(crate) fn held(&self) -> &[u8] {
        &self.held[..usize::from(self.len)]
    }

    pub(crate) fn feed(&mut self, bytes: &[u8], mut out: impl FnMut(&str)) {
        let mut rest = bytes;
        while self.len > 0 && !rest.is_empty() {
            let mut one = [0; 4];
            let held = usize::from(self.len);
            one[..held].copy_from_slice(self.held());
            one[held] = rest[0];
            match std::str::from_utf8(&one[..=held]) {
                Ok(text) => {
                    out(text);
                    self.len = 0;
                    rest = &rest[1..];
                }
                // Still a beginning.
                Err(error) if error.error_len().is_none() => {
                    self.held[held] = rest[0];
                    self.len += 1;
                    rest = &rest[1..];
                }
                // What was held is none; the new byte may be something.
                Err(_) => {
                    out("\u{fffd}");
                    self.len = 0;
                }
            }
        }
        loop {
            match std::str::from_utf8(rest) {
                Ok(text) => return out(text),
                Err(error) => {
                    let (good, bad) = rest.split_at(error.valid_up_to());
                    if let Ok(text) = std::str::from_utf8(good) {
                        out(text);
                    }
                    match error.error_len() {
                        Some(len) => {
                            out("\u{fffd}");
                            rest = &bad[len..];
                        }
                        None => {
                            self.held[..bad.len()].copy_from_slice(bad);
                            self.len = bad.len() as u8;
                            return;
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_portions_are_the_same_text_as_the_whole(
            parts in prop::collection::vec(
                prop::collection::vec(prop_oneof![any::<u8>(), 0x80u8..0xc0, 0xe0u8..0xf5], 0..6), 0..20),
        ) {
            let whole = String::from_utf8_lossy(&parts.concat()).into_owned();
            let mut utf8 = Utf8::default();
            let mut text = String::new();
            for part in &parts {
                utf8.feed(part, |t| text.push_str(t));
            }
            if !utf8.held().is_empty() {
                text.push('\u{fffd}');
            }
            prop_assert_eq!(text, whole);
        }
    }
}

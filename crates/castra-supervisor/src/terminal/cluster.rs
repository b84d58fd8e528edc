//! Characters of several code points in cells that hold one: a combination gets a code point of its own.
//!
//! `avt` would give a combining mark a cell, and everything behind it would be one column off. Combinations of
//! narrow characters are numbered in plane 16 (private use), of wide ones at the end of plane 3 (unassigned, wide
//! by Unicode's default); a program that prints such a code point itself gets U+FFFD.

use std::collections::HashMap;

use unicode_width::UnicodeWidthChar;

const NARROW: u32 = 0x10_0000;
const WIDE: u32 = 0x3_4000;
/// Of each kind; more lose their marks.
const MAX: usize = 8192;
/// Bytes of one: a family of four with skin tones has 41.
const MAX_LEN: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Clusters {
    narrow: Vec<String>,
    wide: Vec<String>,
    by_text: HashMap<String, char>,
}

/// Code points that stand for combinations.
pub(crate) fn is_reserved(c: char) -> bool {
    matches!(u32::from(c), NARROW.. | WIDE..=0x3_ffff)
}

/// Cells: 0 for what combines, 1 or 2.
pub(crate) fn width(c: char) -> usize {
    if c < '\u{7f}' { 1 } else { c.width().unwrap_or(1) }
}

impl Clusters {
    /// The code point for a character, or a combination, with a mark added to it.
    pub(crate) fn combine(&mut self, base: char, mark: char) -> Option<char> {
        let mut text = String::new();
        self.expand(base, &mut text);
        text.push(mark);
        if let Some(&known) = self.by_text.get(&text) {
            return Some(known);
        }
        let (list, first) =
            if width(base) == 2 { (&mut self.wide, WIDE) } else { (&mut self.narrow, NARROW) };
        if list.len() >= MAX || text.len() > MAX_LEN {
            return None;
        }
        let c = char::from_u32(first + list.len() as u32)?;
        list.push(text.clone());
        self.by_text.insert(text, c);
        Some(c)
    }

    /// Appends what a cell's character stands for.
    pub(crate) fn expand(&self, c: char, out: &mut String) {
        let number = u32::from(c);
        let text = match number {
            NARROW.. => self.narrow.get((number - NARROW) as usize),
            WIDE..=0x3_ffff => self.wide.get((number - WIDE) as usize),
            _ => None,
        };
        match text {
            Some(text) => out.push_str(text),
            None => out.push(c),
        }
    }
}

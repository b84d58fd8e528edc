//! Text into the composer, so that it arrives as text: never as a command, a key, or half of it.
//!
//! Every rule is a hazard that was measured on both CLIs (docs/terminal.md). Refuses what has no way in: blocks
//! other than text, and texts that are longer than a person waits for.

use thiserror::Error;
use unicode_normalization::UnicodeNormalization;

/// Bytes of a text above which it is refused: 200 KB take the composer five seconds.
pub const MAX_TEXT: usize = 1 << 20;
/// UTF-16 units of one paste. From 801 on, or with three newlines, the composer folds a paste into `[Pasted text #1]`, and
/// 2.1.329 then gives the model `<pasted_content id="…">` around it.
const PASTE: usize = 600;
const PASTE_NEWLINES: usize = 2;
/// Newlines that make a paste fold.
const FOLD: &str = "\n\n\n\n\n\n\n\n\n\n\n\n";
const OPEN: &[u8] = b"\x1b[200~";
const CLOSE: &[u8] = b"\x1b[201~";

/// What is written to the terminal for a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Typed {
    /// One or more bracketed pastes. To be written when the screen is a prompt with an empty composer.
    pub paste: Vec<u8>,
    /// Enter, to be written apart from it, when the terminal has been quiet for 0.3 s: behind a paste it may be lost.
    ///
    /// An Enter that was merely slow and comes twice answers the dialog that came of the first (seen: it allowed a
    /// tool). So before it is written again, [`PROBE`] is: only when that is seen to have arrived in a composer that
    /// still holds the text, the Enter before it was lost.
    pub submit: &'static [u8],
}

/// A key without consequences whose effect can be seen, since it moves the cursor: keys are taken in order, and at its
/// end claude trims a message.
pub const PROBE: &[u8] = b" ";

/// Why a message cannot be typed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TypingError {
    #[error("the text is empty, or blank: the terminal sends no such message")]
    Empty,
    #[error(
        "{bytes} bytes are more than can be typed into a terminal ({MAX_TEXT}); put them into a file and name it"
    )]
    TooLong { bytes: usize },
    #[error("`{command}` is no slash command: one line that begins with `/` and a letter")]
    NotACommand { command: String },
}

pub const ENTER: &[u8] = b"\r";

/// Types `text` as a message.
///
/// What the composer changes of it, and so cannot be kept: control characters are dropped, tabs are four blanks, CR and
/// CRLF are LF, blanks at its end go, characters are composed (NFC), and 2.1.329 drops what has no width.
pub fn type_text(text: &str) -> Result<Typed, TypingError> {
    let plain = plain(text);
    let plain = plain.trim_end_matches(is_blank);
    if plain.trim_start_matches(is_blank).is_empty() {
        return Err(TypingError::Empty);
    }
    if plain.len() > MAX_TEXT {
        return Err(TypingError::TooLong { bytes: plain.len() });
    }
    let paste = match hazard(plain) {
        // A blank before it is enough for a shell command. The one behind closes the menu of files, and keeps a
        // backslash from making a newline of Enter; at its edges claude trims.
        Hazard::None => pastes(&format!("{plain} ")),
        Hazard::Shell => pastes(&format!(" {plain} ")),
        // 2.1.329 looks behind blanks for a command, but not into a paste that is folded; 2.1.197 the other way round.
        Hazard::Command => one_paste(&format!(" {plain}{FOLD}")),
        Hazard::Exit => one_paste(&format!("{plain}{FOLD}")),
    };
    Ok(Typed { paste, submit: ENTER })
}

/// Types a slash command, deliberately: `/clear`, `/model sonnet`.
pub fn type_command(command: &str) -> Result<Typed, TypingError> {
    let command = command.trim();
    let name = command.strip_prefix('/').unwrap_or_default();
    let one_line = !command.chars().any(char::is_control);
    if !name.starts_with(|first: char| first.is_ascii_alphabetic()) || !one_line || command.len() > PASTE {
        let command = crate::decode::one_line(command);
        return Err(TypingError::NotACommand { command });
    }
    // The blank behind it closes the menu of commands, which would take Enter for a choice.
    Ok(Typed { paste: one_paste(&format!("{command} ")), submit: ENTER })
}

/// Types one line into a field of a dialog, where nothing of the above is a hazard. At most 200 characters.
pub(super) fn type_line(text: &str) -> Vec<u8> {
    one_paste(&plain(&crate::decode::one_line(text)))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hazard {
    None,
    /// `!` runs a shell.
    Shell,
    /// `/` runs a command.
    Command,
    /// Some words end claude.
    Exit,
}

fn hazard(plain: &str) -> Hazard {
    // Invisible characters hide a command from a person, and on 2.1.329 not from claude.
    let seen = plain.trim_matches(|c| is_blank(c) || is_invisible(c));
    match seen.chars().next() {
        Some('!') => Hazard::Shell,
        Some('/') => Hazard::Command,
        _ if matches!(seen, "exit" | "quit" | ":q" | ":q!" | ":wq" | ":wq!") => Hazard::Exit,
        _ => Hazard::None,
    }
}

/// As the composer keeps it.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\r' => {
                characters.next_if_eq(&'\n');
                plain.push('\n');
            }
            '\n' => plain.push('\n'),
            '\t' => plain.push_str("    "),
            // Also ESC: with it would end the paste, or drop what follows.
            control if control.is_control() => {}
            other => plain.push(other),
        }
    }
    plain
}

fn one_paste(text: &str) -> Vec<u8> {
    [OPEN, text.as_bytes(), CLOSE].concat()
}

/// Pastes that are small enough not to be folded.
fn pastes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() + text.len() / 40 + 12);
    let (mut from, mut units, mut newlines) = (0, 0, 0);
    for (at, character) in text.char_indices() {
        if units + character.len_utf16() > PASTE || newlines == PASTE_NEWLINES {
            bytes.extend(one_paste(&text[from..at]));
            (from, units, newlines) = (at, 0, 0);
        }
        units += character.len_utf16();
        newlines += usize::from(character == '\n');
    }
    bytes.extend(one_paste(&text[from..]));
    bytes
}

fn is_blank(character: char) -> bool {
    character.is_whitespace() || character == '\u{feff}'
}

/// Without a width: what 2.1.329 drops from a paste.
fn is_invisible(character: char) -> bool {
    matches!(character, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// Letters and digits of a text's end that must be seen before it counts as taken.
const END: usize = 200;
/// Of which a small window shows so many at least.
const SEEN: usize = 40;

/// Whether a composer that shows `composer` has taken `text` to its end. Silence is no proof: claude reads on while it
/// draws nothing, and an Enter before the last paste is taken sends what there is and drops the rest (measured:
/// 200 KB, 2.1.197). None: nothing of its end is a letter that every screen shows as it is.
///
/// An end that is repeated throughout the text is shown early too: give a long text longer to become quiet.
pub fn stands(composer: &str, text: &str) -> Option<bool> {
    let plain = plain(text);
    if matches!(hazard(plain.trim_matches(is_blank)), Hazard::Command | Hazard::Exit) {
        return Some(composer.starts_with("[Pasted text #") && composer.ends_with(']'));
    }
    let letters = |text: &str| -> Vec<char> {
        let mut letters: Vec<char> = text.nfc().filter(|c| is_plain_letter(*c)).collect();
        letters.split_off(letters.len().saturating_sub(END))
    };
    let (end, shown) = (letters(&plain), letters(composer));
    (!end.is_empty()).then(|| shown.ends_with(&end) || (shown.len() >= SEEN && end.ends_with(&shown)))
}

/// One cell or two on every screen, and never composed of others.
fn is_plain_letter(character: char) -> bool {
    character.is_ascii_alphanumeric()
        || matches!(character, '\u{400}'..='\u{482}' | '\u{3041}'..='\u{3094}' | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7a3}')
}

/// Whether the recorded prompt is the message `sent`, apart from what the composer changes.
pub fn same_prompt(sent: &str, recorded: &str) -> bool {
    let sent = essence(&plain(sent));
    let recorded = essence(&plain(&unfolded(recorded)));
    sent == recorded
}

/// What is left of a text when all is taken away that the composer may change: blanks at the edges, what has no width,
/// and whether a letter and its mark are one character or two.
fn essence(text: &str) -> String {
    let visible = text.chars().filter(|character| !is_invisible(*character));
    visible.nfc().collect::<String>().trim_matches(is_blank).to_owned()
}

/// Without the frame that 2.1.329 puts around a folded paste.
fn unfolded(recorded: &str) -> String {
    let (mut plain, mut rest) = (String::with_capacity(recorded.len()), recorded);
    while let Some((before, after)) = rest.split_once("<pasted_content id=\"") {
        let Some((id, body)) = after.split_once("\">") else { break };
        let close = format!("</pasted_content id=\"{id}\">");
        let Some((body, after)) = body.split_once(&close) else { break };
        plain.push_str(before.strip_suffix("\n\n").unwrap_or(before));
        plain.push_str(body.strip_prefix('\n').unwrap_or(body));
        rest = after.strip_prefix('\n').unwrap_or(after);
    }
    plain.push_str(rest);
    // What looks like such a frame in the text itself has a backslash in it.
    plain.replace("<\\pasted_content", "<pasted_content").replace("<\\/pasted_content", "</pasted_content")
}

#[cfg(test)]
mod tests;

//! What a screen of claude's shows, from its text. Conservative: what is not known for certain is unknown.
//!
//! Every shape here is one that the corpus holds as a recording of the real CLI (`corpus/*/tui/*.txt`).

use super::signal::{Signal, osc};
use castra_proto::spec::PermissionMode;

/// A screen as it was recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Screen {
    /// The composer takes input and no turn runs.
    Prompt(Composer),
    /// A turn runs; what is typed is queued.
    Busy(Composer),
    /// claude waits for an answer.
    Dialog(Dialog),
    /// One of the screens of a first start.
    FirstRun(FirstRun),
    /// Anything else, and whatever is half drawn.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Composer {
    /// What stands in it, line by line; empty: nothing, or a suggestion cannot be told from text.
    pub text: String,
    /// The `!` mode, in which a line is a shell command.
    pub shell: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialog {
    pub kind: DialogKind,
    /// `Bash command`, `Create file`, `Exit plan mode?`, …: its heading.
    pub title: String,
    /// All between the heading and the question.
    pub body: String,
    /// `Do you want to proceed?`
    pub question: String,
    pub options: Vec<Choice>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialogKind {
    /// May this tool run?
    Permission,
    /// `AskUserQuestion`.
    Question,
    /// `ExitPlanMode`.
    Plan,
    /// `/model` in a conversation that has begun: whether it may cost that much.
    SwitchModel,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The digit that chooses it.
    pub number: u8,
    pub label: String,
    /// The cursor is on it: Enter chooses it.
    pub selected: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstRun {
    /// The welcome, with its theme; it probes api.anthropic.com.
    Welcome,
    /// May claude work in this folder?
    Trust,
    /// May this API key be used? The default is no.
    ApiKey,
    /// The warning before bypassPermissions; the default is to leave.
    Bypass,
    /// How to log in.
    Login,
}

const MARK: char = '❯';
/// Rows of which a composer has at least as many where its upper rule is not in the window.
const HIGH: usize = 8;

/// Recognises the screen by its rows, top to bottom, and the window's title.
///
/// Where something stands in the composer of 2.1.197, only the title tells whether a turn runs.
pub fn screen<R: AsRef<str>>(rows: &[R], title: &str) -> Screen {
    let rows: Vec<&str> = rows.iter().map(|row| row.as_ref().trim_end()).collect();
    let end = rows.iter().rposition(|row| !row.is_empty()).map_or(0, |last| last + 1);
    let rows = &rows[..end];
    if let Some(first) = first_run(rows) {
        return Screen::FirstRun(first);
    }
    if let Some(dialog) = dialog(rows) {
        return Screen::Dialog(dialog);
    }
    match composer(rows) {
        Some((composer, busy)) if busy || is_busy(title) => Screen::Busy(composer),
        Some((composer, _)) => Screen::Prompt(composer),
        None => Screen::Unknown,
    }
}

/// The permission mode that the footer names; shift+tab goes from one to the next. None: no composer is shown.
pub fn permission_mode<R: AsRef<str>>(rows: &[R]) -> Option<PermissionMode> {
    let rows: Vec<&str> = rows.iter().map(|row| row.as_ref().trim_end()).collect();
    let lower = rows.iter().rposition(|row| is_rule(row))?;
    let footer = rows[lower + 1..].join(" ");
    let named = [
        ("accept edits on", PermissionMode::AcceptEdits),
        ("plan mode on", PermissionMode::Plan),
        ("auto mode on", PermissionMode::Auto),
        ("bypass permissions on", PermissionMode::BypassPermissions),
        ("don't ask on", PermissionMode::DontAsk),
        ("manual mode on", PermissionMode::Default),
        // 2.1.197 names all but the default.
        ("? for shortcuts", PermissionMode::Default),
    ];
    named.into_iter().find(|(words, _)| footer.contains(words)).map(|(_, mode)| mode)
}

/// Whether what stands in the composer is claude's own hint, which gives way to text (2.1.329, behind an API error:
/// `Resend your message to try again`): all of it is dim, but for the letter beneath the cursor. `rows`: the screen with
/// its colours, as SGR sequences.
pub fn is_hint(rows: &str) -> bool {
    let (mut dim, mut cursor, mut hinted) = (false, false, false);
    let Some(row) = rows.lines().rev().find(|row| visible(row).starts_with(MARK)) else { return false };
    let mut rest = row;
    let mut marked = false;
    while let Some(next) = rest.chars().next() {
        if let Some((sgr, behind)) = rest.strip_prefix("\x1b[").and_then(|rest| rest.split_once('m')) {
            (dim, cursor) = attributes(sgr, (dim, cursor));
            rest = behind;
            continue;
        }
        rest = &rest[next.len_utf8()..];
        match next {
            MARK => marked = true,
            _ if !marked || next.is_whitespace() || cursor => {}
            _ if dim => hinted = true,
            _ => return false,
        }
    }
    hinted
}

/// Dim and inverse behind an SGR sequence.
fn attributes(sgr: &str, now: (bool, bool)) -> (bool, bool) {
    let mut numbers = sgr.split(';').map(|number| number.parse().unwrap_or(0_u16));
    let (mut dim, mut inverse) = now;
    while let Some(number) = numbers.next() {
        match number {
            0 => (dim, inverse) = (false, false),
            2 => dim = true,
            22 => dim = false,
            7 => inverse = true,
            27 => inverse = false,
            // A colour: its own numbers are none of these.
            38 | 48 | 58 => {
                let more = if numbers.next() == Some(2) { 3 } else { 1 };
                numbers.by_ref().take(more).for_each(drop);
            }
            _ => {}
        }
    }
    (dim, inverse)
}

/// Without SGR sequences.
fn visible(row: &str) -> String {
    let mut parts = row.split("\x1b[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.split_once('m').map_or(part, |(_, behind)| behind))
}

fn is_busy(title: &str) -> bool {
    matches!(osc(0, title), Some(Signal::Title { busy: Some(true), .. }))
}

fn first_run(rows: &[&str]) -> Option<FirstRun> {
    let has = |text: &str| rows.iter().any(|row| row.contains(text));
    // Each by two marks, so that a conversation about it is none.
    let marks: [(&str, &str, FirstRun); 8] = [
        ("Bypass Permissions mode", "Yes, I accept", FirstRun::Bypass),
        ("Detected a custom API key", "Yes", FirstRun::ApiKey),
        ("Quick safety check", "Yes, I trust this folder", FirstRun::Trust),
        ("Do you trust", "Yes, proceed", FirstRun::Trust),
        ("Accessing workspace", "Yes, I trust this folder", FirstRun::Trust),
        ("Select login method", "account", FirstRun::Login),
        ("Welcome to Claude Code", "Let's get started", FirstRun::Welcome),
        ("Welcome to Claude Code", "Unable to connect to Anthropic services", FirstRun::Welcome),
    ];
    // A composer below them: they are history.
    if composer(rows).is_some() {
        return None;
    }
    marks.into_iter().find(|(one, other, _)| has(one) && has(other)).map(|(_, _, first)| first)
}

/// A rule of the composer: text in it is indented, however much it looks like one.
fn is_edge(row: &str) -> bool {
    row.starts_with(['─', '▔']) && is_rule(row)
}

/// A line across the window.
fn is_rule(row: &str) -> bool {
    let row = row.trim();
    row.chars().count() >= 20 && row.chars().all(|character| matches!(character, '─' | '▔'))
}

/// A rule that may hold a word at its end.
fn is_upper_rule(row: &str) -> bool {
    is_edge(row) || (row.starts_with("───") && row.chars().filter(|c| *c == '─').count() >= 10)
}

/// The composer between its two rules at the bottom, and whether a turn runs. One that is higher than the window has
/// its upper rule, and perhaps its mark, above it.
fn composer(rows: &[&str]) -> Option<(Composer, bool)> {
    let lower = rows.iter().rposition(|row| is_edge(row))?;
    let upper = rows[..lower].iter().rposition(|row| is_upper_rule(row));
    // 2.1.329 shows twenty rows of a long text.
    let scrolled = upper.is_some_and(|upper| rows[upper].contains(" more ─"));
    let lines = &rows[upper.map_or(0, |upper| upper + 1)..lower];
    let footer = &rows[lower + 1..];
    let (mark, shell) = match lines.first()?.chars().next() {
        Some(MARK) => (MARK, false),
        Some('!') => ('!', true),
        _ if upper.is_none() || scrolled => (MARK, false),
        _ => return None,
    };
    let indented = |line: &&str| line.is_empty() || line.starts_with("  ");
    let whole = upper.is_some() && !scrolled;
    let high = scrolled || (lines.len() >= HIGH && !footer.is_empty());
    if !(whole || high && lines[1..].iter().all(indented)) {
        return None;
    }
    // A list below the composer is the menu of commands or files, which takes the next Enter.
    if footer.len() > 3 || lines.iter().skip(1).any(|line| line.trim_start().starts_with(MARK)) {
        return None;
    }
    let known = [
        "for shortcuts",
        "mode on",
        "edits on",
        "permissions on",
        "esc to interrupt",
        "for agents",
        "shell mode",
        "No commands match",
        "paste again to expand",
        "/effort",
        "ctrl+g to edit",
        // Behind a key that took something away: Ctrl-U, Esc, Ctrl-C.
        "to paste deleted text",
        "sc again to clear",
        "trl-C again to exit",
    ];
    let is_known = |row: &&str| counts_shells(row) || known.iter().any(|words| row.contains(words));
    if !footer.is_empty() && !footer.iter().any(is_known) {
        return None;
    }
    let strip =
        |line: &&str| line.strip_prefix(mark).unwrap_or(line).trim_start_matches(['\u{a0}', ' ']).to_owned();
    let text: Vec<String> = lines.iter().map(strip).collect();
    let busy = footer.iter().any(|row| row.contains("esc to interrupt"));
    Some((Composer { text: text.join("\n").trim_end().to_owned(), shell }, busy))
}

/// `1 shell`: all that the footer of 2.1.197 says where text stands in the composer and a shell runs in the background.
fn counts_shells(row: &str) -> bool {
    let words = row.trim().split_once(' ');
    words.is_some_and(|(number, what)| number.parse::<u32>().is_ok() && matches!(what, "shell" | "shells"))
}

/// The dialog at the bottom.
fn dialog(rows: &[&str]) -> Option<Dialog> {
    let hint = rows.last()?;
    let (options, first) = choices(rows)?;
    // Exactly one is selected; two or none: it is being drawn.
    if options.iter().filter(|option| option.selected).count() != 1 {
        return None;
    }
    let question_at = rows[..first].iter().rposition(|row| !row.trim().is_empty())?;
    let question = rows[question_at].trim().to_owned();
    let head = rows[..=question_at].iter().rposition(|row| is_rule(row))?;
    let mut above = rows[head + 1..question_at].iter().map(|row| row.trim());
    let title = above.find(|row| !row.is_empty()).unwrap_or_default().to_owned();
    let body: Vec<&str> =
        above.filter(|row| !row.is_empty() && !row.chars().all(|character| character == '╌')).collect();
    let kind = match title.as_str() {
        // Of these two some versions show no hint.
        "Exit plan mode?" => DialogKind::Plan,
        "Switch model?" => DialogKind::SwitchModel,
        _ if hint.contains("Enter to select") && hint.contains("Esc to cancel") => DialogKind::Question,
        _ if hint.contains("Esc to cancel") && question.starts_with("Do you want to") => {
            DialogKind::Permission
        }
        _ => return None,
    };
    Some(Dialog { kind, title, body: body.join("\n"), question, options })
}

/// The numbered options, and where the first of them stands.
fn choices(rows: &[&str]) -> Option<(Vec<Choice>, usize)> {
    let first = rows.iter().rposition(|row| choice(row).is_some_and(|choice| choice.number == 1))?;
    let mut options: Vec<Choice> = Vec::new();
    for row in &rows[first..] {
        match choice(row) {
            Some(choice) if usize::from(choice.number) == options.len() + 1 => options.push(choice),
            Some(_) => return None,
            // An option's second line; a hint ends the list.
            None if row.starts_with("      ") || row.starts_with("     ") => {
                let last = options.last_mut()?;
                last.label.push(' ');
                last.label.push_str(row.trim());
            }
            None => {}
        }
    }
    (options.len() >= 2).then_some((options, first))
}

fn choice(row: &str) -> Option<Choice> {
    let row = row.trim_start();
    let (row, selected) = match row.strip_prefix(MARK) {
        Some(rest) => (rest.trim_start(), true),
        None => (row, false),
    };
    let (number, label) = row.split_once(". ")?;
    let number = number.parse().ok().filter(|number| (1..=9).contains(number))?;
    Some(Choice { number, label: label.trim().to_owned(), selected })
}

#[cfg(test)]
mod tests;

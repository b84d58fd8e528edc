//! `castra screen` and `castra type`: a terminal session for scripts, and for agents that drive agents.

use super::Ctx;
use super::failure::Failure;
use super::out::Style;
use castra_proto::api::{Keys, Screen};
use clap::Args;

#[derive(Args, Debug)]
pub(super) struct ScreenArgs {
    /// Session: id, unique prefix, or name
    id: String,
    /// With colours
    #[arg(long)]
    ansi: bool,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Keys: Enter Esc Tab BTab Space BSpace Del Ins Up Down Left Right Home End PgUp PgDn F1 to F12,\n\
    with C- (control), M- (alt) and S- (shift) before them: C-c, M-x, S-Tab, C-Left. A single character is itself.\n\
    Other words are text: castra type ID 'rm -r build' Enter. Behind `--` a word may begin with a dash.\n\
    Keys can answer a dialog, so they need the scope `approve`. For a message, `castra send` is better: it types it\n\
    when claude is ready, makes sure that it arrived, and waits for the answer."
)]
pub(super) struct TypeArgs {
    /// Session: id, unique prefix, or name
    id: String,
    /// Names of keys, and text
    #[arg(required = true, value_name = "KEYS")]
    keys: Vec<String>,
    /// Nothing is a key: type the words as they stand, with blanks between them
    #[arg(short, long)]
    literal: bool,
}

pub(super) async fn screen(args: ScreenArgs, ctx: Ctx) -> Result<(), Failure> {
    let screen = ctx.client().await?.screen(&args.id).await?;
    if ctx.out.json {
        return ctx.out.json(&screen);
    }
    if args.ansi {
        return ctx.out.painted(&screen.ansi);
    }
    ctx.out.text(&plain(&screen))
}

/// The rows down to the last that has something.
fn plain(screen: &Screen) -> String {
    let end = screen.rows.iter().rposition(|row| !row.is_empty()).map_or(0, |last| last + 1);
    screen.rows[..end].iter().map(|row| format!("{row}\n")).collect()
}

pub(super) async fn type_keys(args: TypeArgs, ctx: Ctx) -> Result<(), Failure> {
    let keys = if args.literal { letters(&args.keys) } else { args.keys };
    if keys.is_empty() {
        return Err(Failure::usage("there is nothing to type"));
    }
    ctx.client().await?.keys(&args.id, &Keys { keys }).await?;
    if ctx.out.stderr_tty {
        let hint = format!("`castra screen {}` shows what came of it", args.id);
        ctx.out.note(&ctx.out.paint(Style::Dim, &hint));
    }
    Ok(())
}

/// Words as keys that are letters. Controls have names, and text has none of them.
fn letters(words: &[String]) -> Vec<String> {
    words.join(" ").chars().filter(|c| !c.is_control()).map(String::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use castra_proto::api::{Cursor, ScreenSize};

    #[test]
    fn a_screen_ends_with_its_last_word() {
        let screen = |rows: &[&str]| Screen {
            rows: rows.iter().map(|row| (*row).to_owned()).collect(),
            ansi: String::new(),
            title: String::new(),
            size: ScreenSize { rows: 4, cols: 10 },
            cursor: Cursor { row: 0, col: 0, visible: true },
        };
        assert_eq!(plain(&screen(&["", "a", "", ""])), "\na\n");
        assert_eq!(plain(&screen(&["", ""])), "");
    }

    #[test]
    fn literal_words_have_no_keys() {
        let words = ["Enter", "é\u{1b}\n"].map(String::from);
        assert_eq!(letters(&words), ["E", "n", "t", "e", "r", " ", "é"]);
    }
}

//! `--tmux NAME`: a session's view in tmux, for several people at once. What tmux does to it never touches the session.

use super::Ctx;
use super::escape::one_line;
use super::failure::Failure;
use super::out::Style;
use crate::exec;
use crate::exec::tmux::{self, Holder, NewView, TmuxName};
use castra_proto::Session;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// A view that nobody looks at yet, rows and columns.
const SIZE: (u16, u16) = (50, 200);

/// Refuses a name that somebody has; to be asked before anything is made.
pub(super) fn free(name: &TmuxName) -> Result<(), Failure> {
    match tmux::holder(name)? {
        Holder::Nobody => Ok(()),
        Holder::View(session) => {
            Err(taken(name)
                .hint(format!("it shows session {}: tmux attach -t {name}", one_line(&session, 40))))
        }
        Holder::Stranger => Err(taken(name)),
    }
}

fn taken(name: &TmuxName) -> Failure {
    Failure::usage(format!("tmux has a session called {name} already"))
        .hint("choose another name; `tmux list-sessions` shows those that are taken")
}

/// Makes the view, or finds the one that shows the same session.
pub(super) fn make(ctx: &Ctx, name: &TmuxName, session: &Session, read_only: bool) -> Result<(), Failure> {
    let id = session.id.to_string();
    match tmux::holder(name)? {
        Holder::View(shown) if shown == id => return Ok(()),
        Holder::View(_) | Holder::Stranger => return free(name),
        Holder::Nobody => {}
    }
    let token = hand_over(ctx)?;
    // tmux has keys of its own to leave by; a person's Ctrl-\ must not end it for the others.
    let mut args = vec!["--hold".to_owned(), "--detach-key".to_owned(), "none".to_owned()];
    args.extend(read_only.then(|| "--read-only".to_owned()));
    if let Some(path) = &token {
        args.extend(["--token-from".to_owned(), path.display().to_string()]);
    }
    args.extend(["--".to_owned(), id.clone()]);
    let mut env = ctx.settings.absolute_env();
    env.extend(ctx.settings.var("CASTRA_URL").map(|url| ("CASTRA_URL".to_owned(), url.to_owned())));
    let size = rustix::termios::tcgetwinsize(std::io::stdout())
        .ok()
        .map(|size| (size.ws_row, size.ws_col))
        .filter(|(rows, columns)| *rows > 0 && *columns > 0);
    let view = NewView { name, session: &id, size: size.unwrap_or(SIZE), env: &env, args: &args };
    let made = tmux::start(&view);
    if !matches!(made, Ok(true))
        && let Some(path) = &token
    {
        let _ = std::fs::remove_file(path);
    }
    if made? { Ok(()) } else { Err(taken(name)) }
}

/// Shows it here, where there is a terminal; else says how to.
pub(super) fn show(ctx: &Ctx, name: &TmuxName, session: &Session) -> Result<(), Failure> {
    if !(std::io::stdin().is_terminal() && std::io::stdout().is_terminal()) {
        ctx.out.hint(&format!("tmux attach -t {name}"));
        return Ok(());
    }
    let status = tmux::show(name)?;
    if !status.success() {
        return Err(Failure::new("tmux did not show it").hint(format!("tmux attach -t {name}")));
    }
    let title = one_line(session.name.as_deref().unwrap_or(&session.id.to_string()), 80);
    let note = format!("session {title}; `tmux attach -t {name}` or `castra attach {title}` returns to it");
    ctx.out.note(&ctx.out.paint(Style::Dim, &note));
    Ok(())
}

/// A token goes by a file of one's own, which its reader removes: an argument or tmux's environment is everybody's.
fn hand_over(ctx: &Ctx) -> Result<Option<PathBuf>, Failure> {
    let Some(token) = &ctx.token else { return Ok(None) };
    let path = std::env::temp_dir().join(format!("castra-{}", Uuid::new_v4()));
    exec::write_private(&path, token.as_bytes())?;
    Ok(Some(path))
}

/// Reads what was handed over, once.
pub(super) fn receive(path: &Path) -> Result<String, Failure> {
    let token = std::fs::read_to_string(path)?;
    std::fs::remove_file(path)?;
    Ok(token.trim().to_owned())
}

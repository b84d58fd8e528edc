//! tmux, as somebody's view of a session: started with an argument list that neither a shell nor tmux interprets.
//! Refuses to end or to take over a tmux session.

use super::Error;
use std::ffi::OsStr;
use std::process::{Command, ExitStatus, Output, Stdio};

/// tmux's own option on a tmux session of ours: the castra session that it shows.
const MARK: &str = "@castra_session";

/// A name that tmux takes for nothing else: no target (`:`, `.`, `$1`, `@1`, `%1`, `=x`), no flag, and no format, in
/// which `#(…)` would run a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TmuxName(String);

impl TmuxName {
    const LONGEST: usize = 64;

    /// Errors: what it may be made of.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
        let fits = !text.is_empty() && text.chars().count() <= Self::LONGEST;
        if fits && text.chars().all(plain) && !text.starts_with('-') {
            Ok(Self(text.to_owned()))
        } else {
            Err("letters, digits, `_` and `-`, up to 64 of them")
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Exactly this tmux session, none that begins like it.
    fn target(&self) -> String {
        format!("={}", self.0)
    }
}

impl std::fmt::Display for TmuxName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who has a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    Nobody,
    /// A view of this castra session.
    View(String),
    Stranger,
}

/// A tmux session that is to be.
#[derive(Debug)]
pub struct NewView<'a> {
    pub name: &'a TmuxName,
    /// The castra session's id.
    pub session: &'a str,
    /// Rows and columns until somebody looks.
    pub size: (u16, u16),
    /// Everybody may read it in `ps`: no secrets.
    pub env: &'a [(String, String)],
    /// castra's own arguments.
    pub args: &'a [String],
}

/// Who has the name now.
pub fn holder(name: &TmuxName) -> Result<Holder, Error> {
    let format = format!("#{{session_name}} #{{{MARK}}}");
    let output = run(&["list-sessions", "-F", &format])?;
    if !output.status.success() {
        // Without a server there are no sessions.
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let none = said.contains("no server running") || said.contains("error connecting to");
        return if none { Ok(Holder::Nobody) } else { Err(refused(&said)) };
    }
    Ok(held(&String::from_utf8_lossy(&output.stdout), name))
}

fn held(list: &str, name: &TmuxName) -> Holder {
    let mut marks = list.lines().filter_map(|line| line.split_once(' ')).filter(|(held, _)| *held == name.0);
    match marks.next() {
        None => Holder::Nobody,
        Some((_, "")) => Holder::Stranger,
        Some((_, mark)) => Holder::View(mark.to_owned()),
    }
}

/// Makes it, in the background. False: somebody has just taken the name.
pub fn start(view: &NewView<'_>) -> Result<bool, Error> {
    let image = super::own_image();
    let image = image.to_str().ok_or_else(|| refused("castra's own path is not UTF-8"))?;
    let (rows, columns) = (view.size.0.to_string(), view.size.1.to_string());
    let mut arguments: Vec<String> =
        ["new-session", "-d", "-s", view.name.as_str(), "-x", &columns, "-y", &rows].map(String::from).into();
    for (name, value) in view.env {
        arguments.extend(["-e".to_owned(), whole(&format!("{name}={value}"))]);
    }
    // More than one word: tmux executes it. A single one would go to a shell.
    arguments.extend([whole(image), "attach".to_owned()]);
    arguments.extend(view.args.iter().map(|argument| whole(argument)));
    arguments.push(";".to_owned());
    // A pane of the session: `=NAME:`, for options are set by panes.
    let pane = format!("{}:", view.name.target());
    arguments.extend(["set-option", "-t", &pane, MARK, view.session].map(String::from));
    let output = run(&arguments)?;
    if output.status.success() {
        return Ok(true);
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if said.contains("duplicate session") { Ok(false) } else { Err(refused(&said)) }
}

/// A last `;` of an argument would end tmux's command.
fn whole(argument: &str) -> String {
    match argument.strip_suffix(';') {
        Some(rest) => format!("{rest}\\;"),
        None => argument.to_owned(),
    }
}

/// Shows it in this terminal until the person leaves it; in a tmux that is this terminal's already, by switching.
pub fn show(name: &TmuxName) -> Result<ExitStatus, Error> {
    let inside = std::env::var_os("TMUX").is_some_and(|value| !value.is_empty());
    let verb = if inside { "switch-client" } else { "attach-session" };
    let status = command(&[verb, "-t", &name.target()]).status();
    status.map_err(|source| Error::Spawn { what: "tmux", source })
}

fn run<S: AsRef<OsStr>>(arguments: &[S]) -> Result<Output, Error> {
    let output = command(arguments).stdin(Stdio::null()).output();
    output.map_err(|source| Error::Spawn { what: "tmux", source })
}

/// The first tmux is the server of all that follow, and they inherit its environment: no token in it.
fn command<S: AsRef<OsStr>>(arguments: &[S]) -> Command {
    let mut command = Command::new("tmux");
    command.args(arguments).env_remove("CASTRA_TOKEN");
    command
}

fn refused(said: &str) -> Error {
    Error::Tmux(said.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_nothing_else_to_tmux() {
        for name in ["a", "my-view_2", "größe", "漢字", &"x".repeat(64)] {
            assert_eq!(TmuxName::parse(name).unwrap().as_str(), name);
        }
        for name in [
            "",
            "-d",
            "a:b",
            "a.b",
            "$1",
            "@1",
            "%1",
            "=a",
            "#{pane_id}",
            "#(id)",
            "$(id)",
            "a b",
            "a;b",
            ";",
            "a\n",
            "a\u{1b}",
            "*",
            "{last}",
            "~",
            "a/b",
            &"x".repeat(65),
        ] {
            assert!(TmuxName::parse(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn who_has_a_name() {
        let list = "mine 01928f6e\nother \nmine2 01928f6f\n";
        let name = |text| TmuxName::parse(text).unwrap();
        assert_eq!(held(list, &name("mine")), Holder::View("01928f6e".into()));
        assert_eq!(held(list, &name("other")), Holder::Stranger);
        assert_eq!(held(list, &name("min")), Holder::Nobody);
        assert_eq!(held("", &name("x")), Holder::Nobody);
    }

    #[test]
    fn an_argument_stays_one() {
        for (argument, given) in
            [("a", "a"), (";", "\\;"), ("a;b", "a;b"), ("/tmp/x;", "/tmp/x\\;"), ("", "")]
        {
            assert_eq!(whole(argument), given);
        }
    }
}

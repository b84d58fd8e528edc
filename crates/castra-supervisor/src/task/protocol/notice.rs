//! What castra says to an agent: each message begins with the task's code, which a page or a program that the agent
//! reads does not know. Refuses to decide when.
//!
//! Whatever runs in the workspace can read the code where it stands in `CLAUDE.md`; but what that prints reaches the
//! agent as a tool's output, and instructions say that castra never speaks there.

use super::text::Paths;
use castra_proto::Timestamp;

/// `System[<nonce>]: `, which every message of castra begins with.
pub fn prefix(nonce: &str) -> String {
    format!("System[{nonce}]: ")
}

/// Anything that castra says. Lines of `text` cannot pass for messages of their own: the prefix stands at the
/// beginning of the message only.
pub fn say(nonce: &str, text: &str) -> String {
    format!("{}{text}", prefix(nonce))
}

/// Where the agent finds its instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// In `CLAUDE.md`.
    File,
    /// In its system prompt: the folder is the user's own.
    Prompt,
}

/// The first message of a task that starts by itself.
pub fn kickoff(nonce: &str, place: Where) -> String {
    say(
        nonce,
        match place {
            Where::File => {
                "read CLAUDE.md in this folder, do the task it describes, and report as it says. Begin now."
            }
            Where::Prompt => {
                "do the task that your instructions describe, and report as they say. Begin now."
            }
        },
    )
}

/// To an agent that goes on in a new attempt. `refreshed`: its instructions are not those it began with.
pub fn resumed(nonce: &str, refreshed: bool, place: Where, paths: &Paths) -> String {
    let again = match (refreshed, place) {
        (false, _) => "",
        (true, Where::File) => " CLAUDE.md has changed: read it again first.",
        (true, Where::Prompt) => " Your instructions have changed.",
    };
    let log = paths.resume_log();
    say(
        nonce,
        &format!(
            "you have been resumed ({log}).{again} Processes you had started are gone. Go on with the task."
        ),
    )
}

/// A line of `resume.log`, without its newline; UTC, whole seconds. Source: facts/optio.md §1c.
pub fn resume_log_line(at: Timestamp, refreshed: bool) -> String {
    let whole = at.0.div_euclid(1_000_000) * 1_000_000;
    let at = Timestamp(whole).to_string().replace(".000000", "");
    format!("{at}{}", if refreshed { " REFRESHED:CLAUDE.md" } else { "" })
}

/// What became of a file that was handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    Accepted,
    /// What whoever receives it wants changed.
    Revise(&'a str),
    /// Castra or a callback failed; the file may be good.
    Trouble,
    Rejected(Rejection),
}

/// Why a file cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// No path of a file: empty, `..` in it, a name that no file can have, or a link on its way.
    BadPath,
    /// Not below `deliverables/`.
    Outside,
    Missing,
    /// Not a file: a folder, a link, a pipe.
    NotAFile,
    /// Bytes.
    TooLarge {
        size: u64,
        limit: u64,
    },
    Unreadable,
    /// The task has handed over so many files, counting each version.
    TooMany {
        limit: u64,
    },
    /// Bytes: of the file, what is left of those that a task may hand over, and all of them.
    NoRoom {
        size: u64,
        left: u64,
        limit: u64,
    },
}

/// Exactly one for each `DELIVERABLE`. `path` as the agent wrote it.
pub fn deliverable_reply(nonce: &str, path: &str, verdict: &Verdict<'_>, paths: &Paths) -> String {
    let folder = paths.deliverables();
    let reply = match verdict {
        Verdict::Accepted => "accepted.".to_owned(),
        Verdict::Revise(text) => format!("please revise it and hand it over again: {text}"),
        Verdict::Trouble => {
            "trouble on castra's side, not yours. It was not taken yet: go on, and hand it over again \
             later, after you were resumed say."
                .to_owned()
        }
        Verdict::Rejected(why) => format!("rejected: {}", why.say(&folder)),
    };
    say(nonce, &format!("deliverable {path}: {reply}"))
}

impl Rejection {
    /// With the next step. `folder`: the path of `deliverables/`.
    pub fn say(self, folder: &str) -> String {
        match self {
            Rejection::BadPath => {
                format!(
                    "this is no path of a file. Write it as `{folder}name`, without `..` and without links."
                )
            }
            Rejection::Outside => {
                format!("it is not below `{folder}`. Move it there and hand it over again.")
            }
            Rejection::Missing => {
                format!("there is no such file. Write it below `{folder}` first, then hand it over.")
            }
            Rejection::NotAFile => {
                "it is a folder or a link, not a file. Hand over each file by itself, or pack the folder."
                    .into()
            }
            Rejection::TooLarge { size, limit } => {
                format!("it has {size} bytes; at most {limit} are taken. Hand over less, or in parts.")
            }
            Rejection::Unreadable => {
                "it cannot be read. Look at its permissions, then hand it over again.".into()
            }
            Rejection::TooMany { limit } => {
                format!(
                    "{limit} files were taken already, counting each version, and no more are. Go on without."
                )
            }
            Rejection::NoRoom { size, left, limit } => format!(
                "it has {size} bytes, and of the {limit} that a task may hand over, counting each version, {left} are \
                 left. Hand over less."
            ),
        }
    }
}

/// To an agent whose `DONE` or `ERROR` stood amid a text. `line` as it was written.
pub fn stray(nonce: &str, line: &str, paths: &Paths) -> String {
    let log = paths.log();
    let word = if line.starts_with("ERROR") { "ERROR" } else { "DONE" };
    let text = format!(
        "`{line}` in {log} stood directly beside other text, so it was taken for a part of that and has not ended the \
         task. If you meant to end it: printf '\\n{word}\\n' >> {log}"
    );
    say(nonce, &text)
}

/// The answer to a message that the agent sent to its caller.
pub fn caller_reply(nonce: &str, name: &str, text: &str) -> String {
    say(nonce, &format!("answer to {name}: {text}"))
}

/// A file was put into `uploads/`. `name`: below it.
pub fn uploaded(nonce: &str, name: &str, paths: &Paths) -> String {
    say(nonce, &format!("a file was handed in: {}{name}", paths.uploads()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const N: &str = "k3v9";

    #[test]
    fn a_resume_has_its_line() {
        let at = Timestamp(1_795_246_245_999_999);
        assert_eq!(resume_log_line(at, false), "2026-11-21T07:30:45Z");
        assert_eq!(resume_log_line(at, true), "2026-11-21T07:30:45Z REFRESHED:CLAUDE.md");
        assert_eq!(resume_log_line(Timestamp(-1), false), "1969-12-31T23:59:59Z");
    }

    #[test]
    fn each_verdict_has_its_text() {
        let table: &[(Verdict<'_>, &str)] = &[
            (Verdict::Accepted, "accepted."),
            (Verdict::Revise("no {braces}"), "please revise it and hand it over again: no {braces}"),
            (
                Verdict::Trouble,
                "trouble on castra's side, not yours. It was not taken yet: go on, and hand it over again later, \
                 after you were resumed say.",
            ),
            (
                Verdict::Rejected(Rejection::BadPath),
                "rejected: this is no path of a file. Write it as `.castra/deliverables/name`, without `..` and \
                 without links.",
            ),
            (
                Verdict::Rejected(Rejection::Outside),
                "rejected: it is not below `.castra/deliverables/`. Move it there and hand it over again.",
            ),
            (
                Verdict::Rejected(Rejection::Missing),
                "rejected: there is no such file. Write it below `.castra/deliverables/` first, then hand it over.",
            ),
            (
                Verdict::Rejected(Rejection::NotAFile),
                "rejected: it is a folder or a link, not a file. Hand over each file by itself, or pack the folder.",
            ),
            (
                Verdict::Rejected(Rejection::TooLarge { size: 11, limit: 10 }),
                "rejected: it has 11 bytes; at most 10 are taken. Hand over less, or in parts.",
            ),
            (
                Verdict::Rejected(Rejection::Unreadable),
                "rejected: it cannot be read. Look at its permissions, then hand it over again.",
            ),
            (
                Verdict::Rejected(Rejection::TooMany { limit: 1000 }),
                "rejected: 1000 files were taken already, counting each version, and no more are. Go on without.",
            ),
            (
                Verdict::Rejected(Rejection::NoRoom { size: 11, left: 10, limit: 1 << 30 }),
                "rejected: it has 11 bytes, and of the 1073741824 that a task may hand over, counting each version, 10 \
                 are left. Hand over less.",
            ),
        ];
        for (verdict, text) in table {
            let reply = deliverable_reply(N, "a b.md", verdict, &Paths::beside());
            assert_eq!(reply, format!("System[k3v9]: deliverable a b.md: {text}"));
        }
    }

    #[test]
    fn messages_say_where_things_are() {
        let paths = Paths::fresh();
        assert_eq!(
            kickoff(N, Where::File),
            "System[k3v9]: read CLAUDE.md in this folder, do the task it describes, and report as it says. Begin now."
        );
        assert_eq!(
            kickoff(N, Where::Prompt),
            "System[k3v9]: do the task that your instructions describe, and report as they say. Begin now."
        );
        assert_eq!(
            resumed(N, true, Where::File, &paths),
            "System[k3v9]: you have been resumed (resume.log). CLAUDE.md has changed: read it again first. Processes \
             you had started are gone. Go on with the task."
        );
        assert_eq!(
            stray(N, "ERROR: x", &Paths::beside()),
            "System[k3v9]: `ERROR: x` in .castra/optio.log stood directly beside other text, so it was taken for a \
             part of that and has not ended the task. If you meant to end it: printf '\\nERROR\\n' >> .castra/optio.log"
        );
        assert_eq!(uploaded(N, "a.csv", &paths), "System[k3v9]: a file was handed in: uploads/a.csv");
        assert_eq!(caller_reply(N, "tests-passed", "go on"), "System[k3v9]: answer to tests-passed: go on");
    }
}

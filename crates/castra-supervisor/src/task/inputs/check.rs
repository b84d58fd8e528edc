//! What an input may be: checked before the task is made. Pure; what the host has to say comes later.

use crate::task::reach::check_literal;
use crate::{Error, Result};
use castra_proto::task::{Git, Input, Source};
use castra_proto::{ErrorCode, TaskSpec};
use url::Url;

const MAX_INPUTS: usize = 64;
/// The task's own, in its folder.
const OURS: [&str; 7] =
    ["CLAUDE.md", "optio.log", "optio.log.old", "resume.log", "deliverables", "uploads", ".castra"];

pub(crate) fn check(spec: &TaskSpec) -> Result<()> {
    if spec.inputs.len() > MAX_INPUTS {
        return refuse(
            "inputs",
            format!("there are {}, of {MAX_INPUTS} at most", spec.inputs.len()),
            "pack several into one",
        );
    }
    for (n, input) in spec.inputs.iter().enumerate() {
        one(input, spec.session.workdir.is_some())?;
        let below = |path: &str, above: &str| {
            path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if let Some(before) = spec.inputs[..n].iter().find(|before| below(&before.path, &input.path)) {
            let why = format!("it would take the place of {:?}", before.path);
            return refuse(&input.path, why, "let each have a place of its own");
        }
    }
    Ok(())
}

fn one(input: &Input, users_folder: bool) -> Result<()> {
    let path = &input.path;
    let odd = |part: &str| matches!(part, "" | "." | "..") || part.chars().any(char::is_control);
    if path.split('/').any(odd) || path.len() > 1024 {
        return refuse(
            path,
            "`path` is not one below the task's folder".into(),
            "name it as `folder/name`, without `..`",
        );
    }
    let first = path.split('/').next().unwrap_or_default();
    if OURS.iter().any(|ours| ours.eq_ignore_ascii_case(first)) {
        return refuse(path, format!("{first:?} is the task's own"), "choose another place");
    }
    if let Some(sha256) = &input.sha256
        && (sha256.len() != 64 || !sha256.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
    {
        return refuse(path, "`sha256` is not 64 hexadecimal digits".into(), "`sha256sum FILE` prints it");
    }
    let bits = |mode: &String| {
        let digits = (3..=4).contains(&mode.len()) && mode.bytes().all(|b| b.is_ascii_digit());
        digits && u32::from_str_radix(mode, 8).is_ok_and(|bits| bits <= 0o777)
    };
    if input.mode.as_ref().is_some_and(|mode| !bits(mode)) {
        return refuse(
            path,
            "`mode` is no permission bits in octal".into(),
            "write it as \"644\" or \"755\"",
        );
    }
    match &input.from {
        Source::File(file) => absolute(path, "file", file),
        Source::Url(url) => address(path, "url", url, input.allow_private),
        Source::Git(git) => repository(input, git, users_folder),
        Source::Blob(blob) if blob.version == Some(0) => {
            refuse(path, "`version` is 0".into(), "they are counted from 1")
        }
        Source::Blob(_) => Ok(()),
    }
}

fn repository(input: &Input, git: &Git, users_folder: bool) -> Result<()> {
    let path = &input.path;
    if input.sha256.is_some() || input.mode.is_some() {
        let why = "`sha256` and `mode` are of files, and a repository is none".into();
        return refuse(path, why, "name a commit by `ref`");
    }
    match (&git.url, &git.path) {
        (Some(url), None) => address(path, "git.url", url, input.allow_private)?,
        (None, Some(repository)) => absolute(path, "git.path", repository)?,
        _ => return refuse(path, "`git` has one of `url` and `path`".into(), "leave the other out"),
    }
    if git.worktree && git.path.is_none() {
        return refuse(path, "`worktree` is of a repository of the host".into(), "name it by `path`");
    }
    if git.worktree && users_folder {
        let why = "`worktree` is for a fresh workspace".into();
        return refuse(path, why, "leave out `session.workdir`, or make the worktree yourself");
    }
    match &git.reference {
        Some(reference) if !is_reference(reference) => refuse(
            path,
            format!("`ref` {reference:?} is no name of a commit"),
            "a branch, a tag, or its hash",
        ),
        _ => Ok(()),
    }
}

/// As `git check-ref-format` has them, and nothing that could be an option.
fn is_reference(name: &str) -> bool {
    let odd = |c: char| c.is_control() || " ~^:?*[\\".contains(c);
    (1..=255).contains(&name.len())
        && !name.starts_with(['-', '/', '.'])
        && !name.ends_with(['/', '.'])
        && !name.contains("..")
        && !name.contains("@{")
        && !name.contains("//")
        && !name.chars().any(odd)
}

fn absolute(path: &str, field: &str, named: &str) -> Result<()> {
    if named.starts_with('/') && !named.contains('\0') {
        return Ok(());
    }
    refuse(path, format!("`{field}` {named:?} is not an absolute path"), "name it as the task's host has it")
}

fn address(path: &str, field: &str, text: &str, allow_private: bool) -> Result<()> {
    let hint = "write it as `https://host/path`";
    let Ok(url) = Url::parse(text) else {
        return refuse(path, format!("`{field}` cannot be read"), hint);
    };
    if !matches!(url.scheme(), "http" | "https") {
        return refuse(path, format!("`{field}` is neither http nor https"), hint);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return refuse(
            path,
            format!("`{field}` has a login in it, which would be shown with the task"),
            "leave it out; what needs one is fetched by a hook, or handed in",
        );
    }
    match check_literal(&url) {
        Err(error) if !allow_private => {
            let hint = "set `allow_private: true` (scope `admin`) if that is meant";
            refuse(path, format!("`{field}`: {error}"), hint)
        }
        _ => Ok(()),
    }
}

fn refuse(path: &str, why: String, hint: &str) -> Result<()> {
    Err(Error::with_hint(ErrorCode::InvalidRequest, format!("the input {path:?}: {why}"), hint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn said(inputs: Value) -> Result<(), String> {
        let spec: TaskSpec = serde_json::from_value(json!({ "inputs": inputs })).unwrap();
        check(&spec).map_err(|error| {
            let problem = error.problem();
            assert!(problem.hint.is_some(), "{problem:?}");
            problem.detail
        })
    }

    #[test]
    fn what_cannot_be_an_input_is_refused_with_the_reason() {
        let url = |url: &str| json!({"path": "a", "from": {"url": url}});
        let git = |git: Value| json!({"path": "a", "from": {"git": git}});
        let at = |path: &str| json!({"path": path, "from": {"file": "/x"}});
        let sha = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        for (input, why) in [
            (at(""), "below the task's folder"),
            (at("/a"), "below the task's folder"),
            (at("../a"), "below the task's folder"),
            (at("a/../b"), "below the task's folder"),
            (at("a/"), "below the task's folder"),
            (at("a\nb"), "below the task's folder"),
            (at("CLAUDE.md"), "the task's own"),
            (at("deliverables/x"), "the task's own"),
            (at("Optio.log"), "the task's own"),
            (json!({"path": "a", "from": {"file": "x"}}), "absolute"),
            (json!({"path": "a", "from": {"file": "/x"}, "sha256": "abc"}), "sha256"),
            (json!({"path": "a", "from": {"file": "/x"}, "sha256": sha.to_uppercase()}), "sha256"),
            (json!({"path": "a", "from": {"file": "/x"}, "mode": "u+x"}), "mode"),
            (json!({"path": "a", "from": {"file": "/x"}, "mode": "4755"}), "mode"),
            (json!({"path": "a", "from": {"file": "/x"}, "mode": "7"}), "mode"),
            (url("ftp://example.com/x"), "neither http nor https"),
            (url("file:///etc/passwd"), "neither http nor https"),
            (url("nothing"), "cannot be read"),
            (url("https://me:secret@example.com/"), "a login"),
            (url("http://127.1/"), "not a public address"),
            (url("http://[fd00::1]/"), "not a public address"),
            (git(json!({})), "one of `url` and `path`"),
            (git(json!({"url": "https://a/", "path": "/a"})), "one of `url` and `path`"),
            (git(json!({"url": "ssh://git@example.com/x"})), "neither http nor https"),
            (git(json!({"url": "ext::sh -c id"})), "neither http nor https"),
            (git(json!({"url": "https://example.com/x", "worktree": true})), "of the host"),
            (git(json!({"path": "/a", "ref": "--upload-pack=id"})), "no name of a commit"),
            (git(json!({"path": "/a", "ref": "a..b"})), "no name of a commit"),
            (json!({"path": "a", "from": {"git": {"path": "/a"}}, "mode": "755"}), "of files"),
            (json!({"path": "a", "from": {"blob": {"task": "t", "path": "x", "version": 0}}}), "version"),
        ] {
            let refused = said(json!([input])).unwrap_err();
            assert!(refused.contains(why) && !refused.contains("secret"), "{input}: {refused}");
        }
        let both = said(json!([at("a/b"), at("a")])).unwrap_err();
        assert!(both.contains("take the place of \"a/b\""), "{both}");
        assert!(said(json!([at("a"), at("a")])).is_err());
        assert!(said(Value::Array((0..65).map(|n| at(&format!("f{n}"))).collect())).is_err());
        let beside = json!({
            "inputs": [git(json!({"path": "/a", "worktree": true}))], "session": {"workdir": "/w"},
        });
        assert!(check(&serde_json::from_value(beside).unwrap()).is_err());
    }

    #[test]
    fn what_can_be_had_is_let_through() {
        let sha = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        let inputs = json!([
            {"path": "a/b c.csv", "from": {"url": "https://example.com/x?y=1"}, "sha256": sha, "mode": "0600"},
            {"path": "local", "from": {"url": "http://127.0.0.1:1/"}, "allow_private": true},
            {"path": "repo", "from": {"git": {"path": "/srv/r", "ref": "feature/x", "worktree": true}}},
            {"path": "repo/more", "from": {"file": "/srv/more"}},
            {"path": "other", "from": {"git": {"url": "https://example.com/r.git", "ref": "v1.0"}}},
            {"path": "blob", "from": {"blob": {"task": "data", "path": "table.csv"}}},
        ]);
        assert_eq!(said(inputs), Ok(()));
    }
}

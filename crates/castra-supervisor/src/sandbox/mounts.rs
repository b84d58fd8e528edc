//! Which places of the host a run sees, as a table from path to mount. Pure: knows no bwrap.

use std::collections::BTreeMap;

/// What is at a path inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mount {
    Proc,
    Dev,
    /// Empty and writable, gone with the run.
    Scratch,
    /// Empty and read-only, over something that must not be seen.
    Mask,
    /// The host's, read-only; nothing when it is not there.
    ReadOnly,
    /// The host's, writable; must be there.
    Writable,
}

/// The whole view. Whatever no entry covers does not exist inside.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    at: BTreeMap<String, Mount>,
}

impl View {
    /// Adds or replaces.
    pub(super) fn set(&mut self, path: &str, mount: Mount) {
        self.at.insert(path.to_owned(), mount);
    }

    /// What covers `path`: the entry at it, or at its nearest parent that has one.
    pub(super) fn covering(&self, path: &str) -> Option<Mount> {
        std::iter::successors(Some(path), |p| parent(p)).find_map(|p| self.at.get(p)).copied()
    }

    /// Whether the host's own `path` shows.
    pub(super) fn shows(&self, path: &str) -> bool {
        matches!(self.covering(path), Some(Mount::ReadOnly | Mount::Writable))
    }

    /// Parents before what lies in them, so that nothing mounted later hides an earlier one.
    pub(super) fn in_order(&self) -> Vec<(&str, Mount)> {
        let mut all: Vec<_> = self.at.iter().map(|(p, m)| (p.as_str(), *m)).collect();
        all.sort_by_key(|(path, _)| path.matches('/').count());
        all
    }
}

fn parent(path: &str) -> Option<&str> {
    let cut = path.rfind('/')?;
    (cut > 0).then(|| &path[..cut])
}

/// Whether `path` is `root` or lies in it. Both plain.
pub(super) fn within(path: &str, root: &str) -> bool {
    root == "/" || path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Absolute, and nothing in it that could mean another place: no `.`, `..`, `//`, NUL, no slash at its end.
pub(super) fn plain(path: &str) -> bool {
    path == "/"
        || path.strip_prefix('/').is_some_and(|rest| {
            !rest.contains('\0') && rest.split('/').all(|part| !matches!(part, "" | "." | ".."))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_entry_covers() {
        let mut view = View::default();
        view.set("/opt", Mount::ReadOnly);
        view.set("/opt/castra", Mount::Mask);
        view.set("/opt/castra/sessions/1/work", Mount::Writable);
        for (path, want) in [
            ("/opt/go/bin", Some(Mount::ReadOnly)),
            ("/opt/castra", Some(Mount::Mask)),
            ("/opt/castra/key", Some(Mount::Mask)),
            ("/opt/castra2", Some(Mount::ReadOnly)),
            ("/opt/castra/sessions/1/work/a", Some(Mount::Writable)),
            ("/home/u", None),
            ("/", None),
        ] {
            assert_eq!(view.covering(path), want, "{path}");
        }
        let order: Vec<_> = view.in_order().into_iter().map(|(p, _)| p).collect();
        assert_eq!(order, ["/opt", "/opt/castra", "/opt/castra/sessions/1/work"]);
    }

    #[test]
    fn paths() {
        for (path, root, want) in [
            ("/a/b", "/a", true),
            ("/a", "/a", true),
            ("/ab", "/a", false),
            ("/", "/a", false),
            ("/a", "/", true),
        ] {
            assert_eq!(within(path, root), want, "{path} in {root}");
        }
        for path in ["/", "/a", "/a/b c", "/a/..b"] {
            assert!(plain(path), "{path}");
        }
        for path in ["", "a", "/a/", "//a", "/a//b", "/a/..", "/./a", "/a\0"] {
            assert!(!plain(path), "{path:?}");
        }
    }
}

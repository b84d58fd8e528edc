//! The command line as a table: what is shown, what is hidden, what is refused.

use super::*;

fn paths() -> Paths {
    Paths {
        castra_home: "/home/u/.local/share/castra".into(),
        work: "/home/u/.local/share/castra/sessions/s/work".into(),
        home: "/home/u/.local/share/castra/sessions/s/home".into(),
        user_home: Some("/home/u".into()),
        claude: "/home/u/.local/share/castra/claude/2.1.197/claude".into(),
        path: "/home/u/.local/share/castra/sessions/s/home/.local/bin:/usr/bin:/bin".into(),
        ..Paths::default()
    }
}

fn bwrap() -> Bwrap {
    Bwrap {
        program: "/usr/bin/bwrap".into(),
        root: false,
        userns: false,
        etc: vec!["java-17-openjdk".into()],
    }
}

/// What is mounted beyond the fixed lists, in order.
fn mounts(paths: &Paths) -> Vec<(String, Mount)> {
    let fixed =
        view(&bwrap(), &Paths { claude: "/usr/bin/claude".into(), path: String::new(), ..self::paths() });
    let fixed = fixed.unwrap();
    let own = self::paths();
    let view = view(&bwrap(), paths).unwrap();
    let new = |(path, mount): &(&str, Mount)| {
        *path == own.work || *path == own.home || !fixed.in_order().contains(&(*path, *mount))
    };
    view.in_order().into_iter().filter(new).map(|(p, m)| (p.to_owned(), m)).collect()
}

const CASTRA: &str = "/home/u/.local/share/castra";
const WORK: &str = "/home/u/.local/share/castra/sessions/s/work";
const HOME: &str = "/home/u/.local/share/castra/sessions/s/home";
const FILES: &str = "/home/u/.local/share/castra/sessions/s/home/.castra";
const CLAUDE: &str = "/home/u/.local/share/castra/claude/2.1.197/claude";

/// A case, its paths, and what is mounted for it.
type Seen = (&'static str, Paths, Vec<(&'static str, Mount)>);

#[test]
fn what_each_session_sees() {
    use Mount::*;
    let table: Vec<Seen> = vec![
        ("a fresh workspace", paths(), vec![(CLAUDE, ReadOnly), (HOME, Writable), (WORK, Writable)]),
        (
            "what castra hands to claude, in the session's own home",
            Paths { files: Some(FILES.into()), ..paths() },
            vec![(CLAUDE, ReadOnly), (HOME, Writable), (WORK, Writable), (FILES, ReadOnly)],
        ),
        (
            "what castra hands to claude, where the user's HOME is open",
            Paths { home: "/home/u".into(), files: Some(FILES.into()), ..paths() },
            vec![
                ("/home/u", Writable),
                (CASTRA, Mask),
                (CLAUDE, ReadOnly),
                (WORK, Writable),
                (FILES, ReadOnly),
            ],
        ),
        (
            "what configures claude: held where it could be written, hidden where it is hidden",
            Paths {
                home: "/home/u".into(),
                workdir: Some("/srv/p".into()),
                pinned: vec!["/home/u/.claude".into(), format!("{CASTRA}/other")],
                fixed: vec![
                    "/home/u/.claude/settings.json".into(),
                    "/srv/p/.claude".into(),
                    "/srv/q/.claude".into(),
                    format!("{CASTRA}/other/settings.json"),
                ],
                ..paths()
            },
            vec![
                ("/home/u", Writable),
                ("/srv/p", Writable),
                ("/home/u/.claude", Writable),
                ("/srv/p/.claude", ReadOnly),
                ("/home/u/.claude/settings.json", ReadOnly),
                (CASTRA, Mask),
                (CLAUDE, ReadOnly),
                (WORK, Writable),
            ],
        ),
        (
            "a caller's folder",
            Paths { workdir: Some("/home/u/p".into()), ..paths() },
            vec![("/home/u/p", Writable), (CLAUDE, ReadOnly), (HOME, Writable), (WORK, Writable)],
        ),
        (
            "a folder inside another is not mounted again",
            Paths {
                workdir: Some("/srv/p".into()),
                add_dirs: vec!["/srv/p/sub".into(), "/srv/q".into()],
                ..paths()
            },
            vec![
                ("/srv/p", Writable),
                ("/srv/q", Writable),
                (CLAUDE, ReadOnly),
                (HOME, Writable),
                (WORK, Writable),
            ],
        ),
        (
            "the user's HOME open: castra's own folder is masked in it",
            Paths { home: "/home/u".into(), claude: "/home/u/.local/bin/claude-2".into(), ..paths() },
            vec![
                ("/home/u", Writable),
                ("/home/u/.local/bin/claude-2", ReadOnly),
                (CASTRA, Mask),
                (WORK, Writable),
            ],
        ),
        (
            "PATH outside the system, each folder alone, never a hidden one",
            Paths {
                path: format!(
                    "/home/u/.cargo/bin:/home/u:/home:/:.::/usr/local/bin:{CASTRA}/claude:/run/user/1:/tmp:{HOME}/bin"
                ),
                ..paths()
            },
            vec![("/home/u/.cargo/bin", ReadOnly), (CLAUDE, ReadOnly), (HOME, Writable), (WORK, Writable)],
        ),
        (
            "PATH in the caller's folder stays writable",
            Paths { workdir: Some("/srv/p".into()), path: "/srv/p/node_modules/.bin".into(), ..paths() },
            vec![("/srv/p", Writable), (CLAUDE, ReadOnly), (HOME, Writable), (WORK, Writable)],
        ),
        (
            "further things to show",
            Paths { read_only: vec!["/srv/sdk".into(), "/usr/share/x".into()], ..paths() },
            vec![("/srv/sdk", ReadOnly), (CLAUDE, ReadOnly), (HOME, Writable), (WORK, Writable)],
        ),
        (
            "a data folder and a HOME in /opt are masked",
            Paths {
                castra_home: "/opt/c".into(),
                work: "/opt/c/sessions/s/work".into(),
                home: "/opt/c/sessions/s/home".into(),
                user_home: Some("/opt/u".into()),
                claude: "/opt/c/claude/2/claude".into(),
                path: String::new(),
                ..Paths::default()
            },
            vec![
                ("/opt/c", Mask),
                ("/opt/u", Mask),
                ("/opt/c/claude/2/claude", ReadOnly),
                ("/opt/c/sessions/s/home", Writable),
                ("/opt/c/sessions/s/work", Writable),
            ],
        ),
        (
            "a system account's HOME is no home",
            Paths { user_home: Some("/usr/sbin".into()), ..paths() },
            vec![(CLAUDE, ReadOnly), (HOME, Writable), (WORK, Writable)],
        ),
    ];
    for (what, paths, want) in table {
        let want: Vec<_> = want.into_iter().map(|(p, m)| (p.to_owned(), m)).collect();
        assert_eq!(mounts(&paths), want, "{what}");
    }
}

#[test]
fn what_would_undo_the_walls_is_refused() {
    let wide = |path: &str| WrapError::TooWide { path: path.into() };
    for path in [
        "/",
        "/home",
        "/tmp",
        "/var",
        "/var/tmp",
        "/etc",
        "/run",
        "/run/user/1000",
        "/proc/1/root",
        "/dev",
        "/sys",
    ] {
        let workdir = Paths { workdir: Some(path.into()), ..paths() };
        assert_eq!(wrap(&[], &bwrap(), &workdir), Err(wide(path)));
        assert_eq!(wrap(&[], &bwrap(), &Paths { add_dirs: vec![path.into()], ..paths() }), Err(wide(path)));
        assert_eq!(wrap(&[], &bwrap(), &Paths { read_only: vec![path.into()], ..paths() }), Err(wide(path)));
    }
    let homes =
        Paths { user_home: Some("/data/homes/u".into()), workdir: Some("/data/homes".into()), ..paths() };
    assert_eq!(wrap(&[], &bwrap(), &homes), Err(wide("/data/homes")));
    for path in
        [CASTRA, "/home/u/.local/share/castra/sessions/other/work", "/home/u/.local/share/castra/sessions/s"]
    {
        let workdir = Paths { workdir: Some(path.into()), ..paths() };
        assert_eq!(wrap(&[], &bwrap(), &workdir), Err(WrapError::CastrasOwn { path: path.into() }));
    }
    let same = Paths { home: CASTRA.into(), ..paths() };
    assert_eq!(wrap(&[], &bwrap(), &same), Err(WrapError::CastrasOwn { path: CASTRA.into() }));
    for path in ["", "p", "/p/", "/p/../q", "/p\0"] {
        let workdir = Paths { workdir: Some(path.into()), ..paths() };
        assert_eq!(wrap(&[], &bwrap(), &workdir), Err(WrapError::NotPlain { path: path.into() }));
    }
}

#[test]
fn the_whole_line() {
    let bwrap = Bwrap { root: true, userns: true, ..bwrap() };
    let paths = Paths { home: "/home/u".into(), ..paths() };
    let got = wrap(&["claude".into(), "-p".into()], &bwrap, &paths).unwrap().join(" ");
    let (head, mounts) = got.split_once(" --ro-bind-try").unwrap();
    assert_eq!(
        head,
        "/usr/bin/bwrap --die-with-parent --unshare-pid --unshare-ipc --unshare-user \
         --cap-drop ALL --cap-add CAP_CHOWN --cap-add CAP_DAC_OVERRIDE --cap-add CAP_FOWNER"
    );
    for part in [
        "--dev /dev",
        "--proc /proc",
        "--perms 1777 --tmpfs /tmp",
        "--perms 1777 --tmpfs /var/tmp",
        "--ro-bind-try /usr /usr",
        "--ro-bind-try /etc/java-17-openjdk /etc/java-17-openjdk",
        &format!("--tmpfs {CASTRA}"),
    ] {
        assert!(mounts.contains(part), "{part}: {mounts}");
    }
    let end =
        format!("--bind {WORK} {WORK} --remount-ro {CASTRA} --remount-ro / --chdir {WORK} -- claude -p");
    assert!(mounts.ends_with(&end), "{mounts}");
}

#[test]
fn an_open_home_is_known() {
    for (paths, want) in [
        (paths(), false),
        (Paths { home: "/home/u".into(), ..paths() }, true),
        (Paths { workdir: Some("/home/u".into()), ..paths() }, true),
        (Paths { workdir: Some("/home/u/p".into()), ..paths() }, false),
        (Paths { add_dirs: vec!["/home/u".into()], ..paths() }, true),
        (Paths { user_home: None, ..paths() }, false),
    ] {
        assert_eq!(paths.opens_user_home(), want, "{paths:?}");
    }
}

//! The bubblewrap command line of a run: a list of what is there, and nothing else is. Pure.
//!
//! An allow-list and not the host's root made read-only: whatever castra has never heard of (other
//! homes, mounted disks, sockets in `/run` or `/var`, keys in `/etc`) is absent instead of forgotten.

use castra_proto::{ErrorCode, Problem};
use thiserror::Error;

use super::Bwrap;
use super::mounts::{Mount, View, plain, within};

/// Where things are on the host. Absolute, links resolved: bwrap mounts at these very names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paths {
    pub castra_home: String,
    /// The session's own folder for the agent's files.
    pub work: String,
    /// What claude gets as HOME: the session's own, or the user's.
    pub home: String,
    /// The user's real HOME: unseen, unless it is also `home` or `workdir`.
    pub user_home: Option<String>,
    /// The caller's folder, where claude works instead of `work`.
    pub workdir: Option<String>,
    /// Further folders that claude may change.
    pub add_dirs: Vec<String>,
    /// The CLI, links resolved. Read-only inside, wherever it lies.
    pub claude: String,
    /// The run's PATH. Its folders are shown read-only, each alone: a toolchain that keeps its libraries
    /// beside `bin` in a hidden home needs `read_only` as well.
    pub path: String,
    /// Further files and folders to show.
    pub read_only: Vec<String>,
    /// What castra hands to claude by a file: settings, servers, prompts. Read-only, also inside the session's
    /// own home: what decides is not the agent's to change.
    pub files: Option<String>,
    /// What configures claude in folders that it may change otherwise. Read-only, and there.
    pub fixed: Vec<String>,
    /// Folders that hold such files and stay writable: mounted on themselves, so that they stay where they are.
    pub pinned: Vec<String>,
}

impl Paths {
    /// Whether claude can change the user's own HOME.
    pub fn opens_user_home(&self) -> bool {
        let Some(user_home) = &self.user_home else { return false };
        self.asked_for().any(|dir| within(user_home, dir))
    }

    /// The folders outside castra's own that the caller wants claude to change.
    fn asked_for(&self) -> impl Iterator<Item = &str> {
        let home = (!within(&self.home, &self.castra_home)).then_some(&self.home);
        home.into_iter().chain(&self.workdir).chain(&self.add_dirs).map(String::as_str)
    }
}

/// Why a run cannot be walled in as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WrapError {
    #[error("{path:?} is not an absolute path without `.`, `..` and doubled slashes")]
    NotPlain { path: String },
    #[error("{path} would open the whole machine, other homes or the sockets of other programs to claude")]
    TooWide { path: String },
    #[error("{path} is castra's own")]
    CastrasOwn { path: String },
}

impl From<WrapError> for crate::Error {
    fn from(error: WrapError) -> Self {
        let hint = "name a folder that holds the work and little else, or start with `--sandbox off`";
        Self::Refused(Problem::new(ErrorCode::InvalidRequest, error.to_string()).hint(hint))
    }
}

/// Programs and libraries. The last is how NixOS spells `/usr`.
const SYSTEM: &[&str] = &[
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/opt",
    "/nix",
    "/gnu",
    "/run/current-system",
];

/// Of `/etc`: names, users, trust, time, the linker, terminals. Not: shadow, ssh, private keys, tokens.
/// A file that is replaced while the run lives (resolv.conf on a roaming laptop) stays as it was.
const ETC: &[&str] = &[
    "alternatives",
    "bash.bashrc",
    "bashrc",
    "ca-certificates",
    "ca-certificates.conf",
    "crypto-policies",
    "debian_version",
    "fonts",
    "gai.conf",
    "gitconfig",
    "group",
    "host.conf",
    "hostname",
    "hosts",
    "inputrc",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "ld-musl-aarch64.path",
    "ld-musl-x86_64.path",
    "locale.alias",
    "locale.conf",
    "localtime",
    "lsb-release",
    "magic",
    "mime.types",
    "networks",
    "nsswitch.conf",
    "os-release",
    "passwd",
    "pki/ca-trust",
    "pki/tls/cert.pem",
    "pki/tls/certs",
    "pki/tls/openssl.cnf",
    "profile",
    "profile.d",
    "protocols",
    "resolv.conf",
    "services",
    "shells",
    "ssl/cert.pem",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
    "timezone",
];

/// Users that come from a directory service: without these a uid has no name, and ssh refuses to run.
/// And the processors, which build tools count.
const FURTHER: &[&str] = &["/var/lib/sss/mc", "/var/lib/sss/pipes/nss", "/sys/devices/system"];

/// The system's own trees, which no caller's folder may be in.
const KERNEL: &[&str] = &["/proc", "/sys", "/dev", "/run", "/var/run"];

/// Where other homes and other programs' sockets are: no caller's folder may hold one of these.
const SHARED: &[&str] = &["/home", "/tmp", "/var/tmp", "/run", "/etc"];

/// Through these files root, with no capability at all, changes the whole machine (`core_pattern` runs a
/// program outside). bwrap 0.8 means to make `/proc/sys` read-only and does not, since its test for a
/// writable folder fails there (measured).
const PROC: &[&str] = &[
    "/proc/sys",
    "/proc/sysrq-trigger",
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/acpi",
    "/proc/scsi",
    "/proc/mtrr",
];

/// What root keeps: the rights over files that root needs in a folder of somebody else. None of them
/// reaches past the mounts (`CAP_DAC_READ_SEARCH`, which opens files by handle, is not among them).
const ROOT_KEEPS: &[&str] = &["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER"];

/// `argv` inside the walls. A shim that starts this must be told that it is wrapped.
pub fn wrap(argv: &[String], bwrap: &Bwrap, paths: &Paths) -> Result<Vec<String>, WrapError> {
    let view = view(bwrap, paths)?;
    let mut out = vec![bwrap.program.clone()];
    let mut add = |words: &[&str]| out.extend(words.iter().map(|w| (*w).to_owned()));
    // With the pid namespace: whoever of shim and bwrap dies, everything inside dies. No --new-session: a
    // shim has no terminal to lend, and a TUI must keep its own to hear of a resize.
    add(&["--die-with-parent", "--unshare-pid", "--unshare-ipc"]);
    if bwrap.userns {
        add(&["--unshare-user"]);
    }
    if bwrap.root {
        add(&["--cap-drop", "ALL"]);
        ROOT_KEEPS.iter().for_each(|cap| add(&["--cap-add", cap]));
    }
    for (path, mount) in view.in_order() {
        match mount {
            Mount::Proc => add(&["--proc", path]),
            Mount::Dev => add(&["--dev", path]),
            Mount::Scratch => add(&["--perms", "1777", "--tmpfs", path]),
            Mount::Mask => add(&["--tmpfs", path]),
            Mount::ReadOnly => add(&["--ro-bind-try", path, path]),
            Mount::Writable => add(&["--bind", path, path]),
        }
    }
    // Last, when every mount point is made: what holds them takes no more files.
    for (path, mount) in view.in_order() {
        if mount == Mount::Mask {
            add(&["--remount-ro", path]);
        }
    }
    add(&["--remount-ro", "/", "--chdir", paths.workdir.as_deref().unwrap_or(&paths.work), "--"]);
    out.extend_from_slice(argv);
    Ok(out)
}

fn view(bwrap: &Bwrap, paths: &Paths) -> Result<View, WrapError> {
    let mut view = View::default();
    view.set("/proc", Mount::Proc);
    view.set("/dev", Mount::Dev);
    view.set("/tmp", Mount::Scratch);
    view.set("/var/tmp", Mount::Scratch);
    let etc =
        ETC.iter().copied().chain(bwrap.etc.iter().map(String::as_str)).map(|name| format!("/etc/{name}"));
    for path in SYSTEM.iter().chain(FURTHER).map(|p| (*p).to_owned()).chain(etc) {
        view.set(&path, Mount::ReadOnly);
    }

    // Not for others, whom the files' modes stop: a nested bwrap could not mount its own /proc.
    for path in PROC.iter().filter(|_| bwrap.root) {
        view.set(path, Mount::ReadOnly);
    }

    for path in [&paths.castra_home, &paths.work, &paths.home, &paths.claude] {
        check_plain(path)?;
    }
    let own: Vec<&str> = [&paths.work, &paths.home]
        .into_iter()
        .map(String::as_str)
        .filter(|p| within(p, &paths.castra_home))
        .collect();
    if let Some(path) = own.iter().find(|path| **path == paths.castra_home) {
        return Err(WrapError::CastrasOwn { path: (*path).to_owned() });
    }
    let mut asked: Vec<&str> = paths.asked_for().collect();
    // Shallow first: a folder inside a writable one is never mounted again, since the agent could have
    // put a link in its place, which bwrap would follow.
    asked.sort_by_key(|path| path.len());
    for path in asked {
        check_plain(path)?;
        check_wide(path, paths)?;
        let mine = own.iter().any(|o| within(path, o));
        if within(path, &paths.castra_home) && !mine {
            return Err(WrapError::CastrasOwn { path: path.to_owned() });
        }
        if !mine && view.covering(path) != Some(Mount::Writable) {
            view.set(path, Mount::Writable);
        }
    }
    for path in &paths.read_only {
        check_plain(path)?;
        check_wide(path, paths)?;
    }
    let shown = paths.path.split(':').filter(|dir| may_show(dir, paths));
    for path in shown.chain(paths.read_only.iter().map(String::as_str)) {
        if !view.shows(path) && !own.iter().any(|o| within(path, o)) {
            view.set(path, Mount::ReadOnly);
        }
    }

    // What the lists above happen to hold of the hidden: a data folder in /opt or /tmp, or in the user's
    // HOME when that is open.
    if let Some(user_home) = paths.user_home.as_deref().filter(|home| plain(home) && !is_system(home))
        && matches!(view.covering(user_home), Some(Mount::ReadOnly | Mount::Scratch))
    {
        view.set(user_home, Mount::Mask);
    }
    if view.covering(&paths.castra_home).is_some() {
        view.set(&paths.castra_home, Mount::Mask);
    }
    for path in own {
        view.set(path, Mount::Writable);
    }
    if let Some(files) = &paths.files {
        check_plain(files)?;
        view.set(files, Mount::ReadOnly);
    }
    for (places, mount) in [(&paths.pinned, Mount::Writable), (&paths.fixed, Mount::ReadOnly)] {
        for path in places {
            check_plain(path)?;
            // What is not to be written as it is needs nothing, and a hidden place stays hidden.
            if view.covering(path) == Some(Mount::Writable) {
                view.set(path, mount);
            }
        }
    }
    if view.covering(&paths.claude) != Some(Mount::ReadOnly) {
        view.set(&paths.claude, Mount::ReadOnly);
    }
    Ok(view)
}

/// The "homes" of system accounts (`bin`, `daemon`, `games`), which are programs' places in truth.
fn is_system(home: &str) -> bool {
    SYSTEM.contains(&home) || home.strip_prefix("/usr/").is_some_and(|rest| !rest.contains('/'))
}

fn check_plain(path: &str) -> Result<(), WrapError> {
    if plain(path) { Ok(()) } else { Err(WrapError::NotPlain { path: path.to_owned() }) }
}

/// What a caller names must not undo the walls.
fn check_wide(path: &str, paths: &Paths) -> Result<(), WrapError> {
    let above_home = paths.user_home.as_deref().is_some_and(|home| home != path && within(home, path));
    if above_home
        || KERNEL.iter().any(|root| within(path, root))
        || SHARED.iter().chain(KERNEL).any(|shared| within(shared, path))
    {
        return Err(WrapError::TooWide { path: path.to_owned() });
    }
    Ok(())
}

/// PATH may hold anything; a folder that holds a hidden place, or lies in one, is left out.
fn may_show(dir: &str, paths: &Paths) -> bool {
    let hidden = [Some(paths.castra_home.as_str()), paths.user_home.as_deref()];
    plain(dir)
        && !within(dir, &paths.castra_home)
        && !KERNEL.iter().any(|root| within(dir, root))
        && !SHARED.iter().chain(KERNEL).any(|shared| within(shared, dir))
        && !hidden.into_iter().flatten().any(|h| within(h, dir))
}

#[cfg(test)]
#[path = "wrap_tests.rs"]
mod tests;

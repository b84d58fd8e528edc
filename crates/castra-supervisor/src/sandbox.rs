//! The walls around a run: whether this host has them, what is shown of them, and how claude is put inside.
//!
//! Owns the choice; the command line is made in `wrap`, the proof that it holds in `probe`. Refuses to
//! call anything a sandbox that did not deny a forbidden access.
//!
//! What the walls do not cover: the network is the host's (loopback must reach the model), and with it
//! abstract sockets; `/tmp` is memory, bounded by the kernel's half of RAM; no system call is filtered.

mod mounts;
mod probe;
mod wrap;

use castra_proto::session::{Sandbox, SandboxKind};
use castra_proto::spec::SandboxMode;
use castra_proto::{ErrorCode, Problem};
use tokio::sync::OnceCell;

use crate::host::{Host, HostError};
use crate::{Error, Result};

pub use probe::probe;
pub use wrap::{Paths, WrapError, wrap};

/// A bubblewrap that was seen to deny what it must.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bwrap {
    /// Absolute path of `bwrap` on that host.
    pub program: String,
    /// It runs as root: no user namespace is implied, so capabilities are dropped by name.
    pub root: bool,
    /// Root may not make the other namespaces without a user namespace around them.
    pub userns: bool,
    /// What is shown of `/etc` beside the fixed list: versioned names such as `java-17-openjdk`.
    pub etc: Vec<String>,
}

/// What a host can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SandboxProbe {
    Bubblewrap(Bwrap),
    /// `reason` completes "no sandbox: …".
    None {
        reason: String,
    },
}

/// What was chosen for one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// With this claude is wrapped, and `StartSpec::wrapped` is true.
    pub wrap: Option<Bwrap>,
    pub shown: Sandbox,
}

/// Chooses by the session's wish and the host's means. `own_home`: claude works in the user's real HOME
/// ([`Paths::opens_user_home`]), which no wall changes, and which is said.
///
/// Errors: `sandbox_unavailable` when `strict` cannot be had.
pub fn decide(mode: SandboxMode, probe: &SandboxProbe, own_home: bool) -> Result<Decision> {
    let none = |reason: &str| Decision {
        wrap: None,
        shown: Sandbox { kind: SandboxKind::None, reason: Some(reason.to_owned()) },
    };
    match (mode, probe) {
        (SandboxMode::Off, _) => Ok(none("off")),
        (_, SandboxProbe::Bubblewrap(bwrap)) => Ok(Decision {
            wrap: Some(bwrap.clone()),
            shown: Sandbox {
                kind: SandboxKind::Bubblewrap,
                reason: own_home
                    .then(|| "the user's own HOME is open to claude, for reading and writing".to_owned()),
            },
        }),
        (SandboxMode::Auto, SandboxProbe::None { reason }) => Ok(none(reason)),
        (SandboxMode::Strict, SandboxProbe::None { reason }) => Err(Error::Refused(
            Problem::new(ErrorCode::SandboxUnavailable, format!("no sandbox: {reason}")).hint(NEXT),
        )),
    }
}

/// The next step for whoever wants a sandbox and has none; `doctor` prints it too.
pub const NEXT: &str = "install the package `bubblewrap`, and allow user namespaces (Ubuntu: sysctl \
    kernel.apparmor_restrict_unprivileged_userns=0; in a container: run it with CAP_SYS_ADMIN or without \
    its seccomp profile); or start with `--sandbox auto`, which tells when there is none";

/// A host's probe, made once in a daemon's life.
#[derive(Debug, Default)]
pub struct Sandboxing {
    probed: OnceCell<SandboxProbe>,
}

impl Sandboxing {
    /// The probe's outcome; the first caller makes it, others wait. A host that did not answer is asked
    /// again by the next caller.
    pub async fn probe(&self, host: &dyn Host) -> Result<&SandboxProbe, HostError> {
        self.probed.get_or_try_init(|| probe(host)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(kind: SandboxKind, reason: Option<&str>) -> Sandbox {
        Sandbox { kind, reason: reason.map(str::to_owned) }
    }

    #[test]
    fn every_wish_on_every_host() {
        let bwrap = Bwrap { program: "/usr/bin/bwrap".into(), root: false, userns: false, etc: vec![] };
        let able = SandboxProbe::Bubblewrap(bwrap.clone());
        let unable = SandboxProbe::None { reason: "bubblewrap is not installed".into() };
        let (some, none) = (SandboxKind::Bubblewrap, SandboxKind::None);
        let why = Some("bubblewrap is not installed");
        let own = Some("the user's own HOME is open to claude, for reading and writing");
        for (mode, probe, own_home, wrap, want) in [
            (SandboxMode::Auto, &able, false, true, shown(some, None)),
            (SandboxMode::Auto, &able, true, true, shown(some, own)),
            (SandboxMode::Strict, &able, false, true, shown(some, None)),
            (SandboxMode::Strict, &able, true, true, shown(some, own)),
            (SandboxMode::Off, &able, false, false, shown(none, Some("off"))),
            (SandboxMode::Off, &unable, true, false, shown(none, Some("off"))),
            (SandboxMode::Auto, &unable, false, false, shown(none, why)),
        ] {
            let got = decide(mode, probe, own_home).unwrap();
            assert_eq!(
                got,
                Decision { wrap: wrap.then(|| bwrap.clone()), shown: want },
                "{mode:?} {probe:?}"
            );
        }
        let refused = decide(SandboxMode::Strict, &unable, false).unwrap_err().problem();
        assert_eq!(refused.code, ErrorCode::SandboxUnavailable);
        assert_eq!(refused.detail, "no sandbox: bubblewrap is not installed");
        assert!(refused.hint.is_some());
    }
}

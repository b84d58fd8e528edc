//! The shim's program: embedded in this build, installed on a host under its own hash.

use std::sync::LazyLock;

use bytes::Bytes;
use castra_proto::shim::relay::{At, EntryKind};
use sha2::{Digest, Sha256};

use super::{Files, HostError, put};

/// Built by `build.rs`: static, for this machine's architecture.
static IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/castra-shim"));

static IMAGE_ID: LazyLock<String> = LazyLock::new(|| {
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(IMAGE) {
        text.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
        text.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
    }
    text
});

/// The shim's program, as it is started for every run of this build.
pub fn shim_image() -> &'static [u8] {
    IMAGE
}

/// Its SHA-256, lower-case hex: the name it is installed under.
pub fn shim_image_id() -> &'static str {
    &IMAGE_ID
}

/// Puts the image at `shims/<sha256>/castra-shim`. Runs keep theirs for ever: an upgrade adds a name.
pub async fn install_image(host: &dyn Files) -> Result<(), HostError> {
    let dir = format!("shims/{}", shim_image_id());
    let at = At::home(format!("{dir}/castra-shim"));
    // Renamed into place when whole, so that the right size under the right name is the right file.
    let there = host.stat(at.clone()).await?;
    if there.is_some_and(|e| e.kind == EntryKind::File && e.size == IMAGE.len() as u64 && e.mode == 0o700) {
        return Ok(());
    }
    host.mkdir(At::home(dir), 0o700).await?;
    put(host, at, 0o700, true, Bytes::from_static(IMAGE)).await
}

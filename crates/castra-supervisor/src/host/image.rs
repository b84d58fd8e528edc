//! The shim's program: embedded in this build, installed on a host under its own hash.

use bytes::Bytes;
use castra_proto::shim::relay::{At, EntryKind};

use super::{Files, HostError, put};

/// Built by `build.rs`: static, for this machine's architecture.
static IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/castra-shim"));

/// The shim's program, as it is started for every run of this build.
pub fn shim_image() -> &'static [u8] {
    IMAGE
}

/// Its SHA-256, lower-case hex: the name it is installed under.
pub fn shim_image_id() -> &'static str {
    env!("CASTRA_SHIM_IMAGE_ID")
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

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    #[test]
    fn the_image_is_named_by_its_hash() {
        let hash: String = Sha256::digest(IMAGE).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(shim_image_id(), hash);
    }
}

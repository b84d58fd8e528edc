//! Keeps an agent in a sandbox from writing what configures it: the folders and files that claude reads settings
//! from. Refuses to mount through a link, which the agent could turn.

use super::launch::Place;
use crate::engine::Engine;
use crate::sandbox::Paths;
use crate::{Error, Result};
use castra_claude::launch::{Fixed, fixed};
use castra_proto::shim::relay::At;
use castra_proto::{ErrorCode, SessionSpec};
use tracing::warn;

/// Adds to `paths` what is to be read-only inside. What is not there yet is made, empty, so that there is something
/// to hold: an empty folder, or a settings file that says nothing.
pub(super) async fn fix(engine: &Engine, spec: &SessionSpec, place: &Place, paths: &mut Paths) -> Result<()> {
    for place in fixed(spec, &place.work, &place.config_dir) {
        match place {
            Fixed::Folder(folder) => {
                if !is_itself(engine, &folder).await? {
                    engine.host.files().mkdir(at(&folder), 0o755).await.map_err(|error| {
                        refused(format!("{folder} cannot be kept from being changed: {error}"))
                    })?;
                }
                if !is_itself(engine, &folder).await? {
                    return Err(refused(format!(
                        "{folder} is a link, in whose place the agent could put another"
                    )));
                }
                paths.fixed.push(folder);
            }
            Fixed::File { dir, path } => {
                // The user's own arrangement of their HOME, which is open to the agent anyway.
                if !is_itself(engine, &dir).await? {
                    warn!(dir, "is a link: settings in it can be changed by the agent");
                    continue;
                }
                if engine.host.files().stat(at(&path)).await?.is_none() {
                    let nothing = bytes::Bytes::from_static(b"{}\n");
                    crate::host::put(engine.host.files(), at(&path), 0o600, false, nothing).await?;
                }
                if !is_itself(engine, &path).await? {
                    warn!(path, "is a link: the agent can put other settings in its place");
                    continue;
                }
                // As a mount point it cannot be renamed, and another put in its place.
                if !paths.pinned.contains(&dir) {
                    paths.pinned.push(dir);
                }
                paths.fixed.push(path);
            }
        }
    }
    Ok(())
}

/// There, and no link on the way.
async fn is_itself(engine: &Engine, path: &str) -> Result<bool> {
    Ok(engine.real_path(path).await?.as_deref() == Some(path))
}

fn at(path: &str) -> At {
    At::dir("/", path.trim_start_matches('/'))
}

fn refused(detail: String) -> Error {
    Error::with_hint(
        ErrorCode::InvalidRequest,
        detail,
        "put a folder there; or start without the folder's settings (`--setting-sources ''`), or with `--sandbox off`",
    )
}

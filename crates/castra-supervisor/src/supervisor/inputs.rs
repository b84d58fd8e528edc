//! Who may have what fetched: inputs of a task are settled when it is made, by real paths and by ids.

use super::{Caller, Supervisor, upload_scope};
use crate::{Error, Result};
use castra_proto::api::Scope;
use castra_proto::task::Source;
use castra_proto::{ErrorCode, TaskSpec};
use std::path::Path;

impl Supervisor {
    /// An agent can read what is fetched for it, and tell: files and repositories of the host are named as folders are,
    /// by whoever may approve, or within the folders that the operator has listed.
    /// A `child` may name a sibling, which is made later.
    pub(super) async fn settle_inputs(
        &self,
        spec: &mut TaskSpec,
        child: bool,
        caller: &Caller,
    ) -> Result<()> {
        for input in &mut spec.inputs {
            let forbidden = |what: &str, needed: Scope, hint: &str| {
                let detail =
                    format!("the input {:?}: {what} needs the scope `{}`", input.path, needed.as_str());
                Err(Error::with_hint(ErrorCode::Forbidden, detail, hint))
            };
            let needed = upload_scope(&input.path);
            if caller.scope < needed {
                return forbidden(
                    "its place",
                    needed,
                    "settings, hooks and servers decide what runs unasked",
                );
            }
            if input.allow_private && caller.scope < Scope::Admin {
                return forbidden("`allow_private`", Scope::Admin, "leave it out for a public address");
            }
            let path = match &mut input.from {
                Source::File(path) => path,
                Source::Git(git) => match &mut git.path {
                    Some(path) => path,
                    None => continue,
                },
                Source::Blob(blob) => {
                    match self.resolve_task(&blob.task).await {
                        Ok(id) => blob.task = id.to_string(),
                        Err(error) if child && error.problem().code == ErrorCode::NotFound => {}
                        Err(error) => return Err(error),
                    }
                    continue;
                }
                Source::Url(_) => continue,
            };
            // Of others they do not learn whether they exist.
            if caller.scope < Scope::Approve && !self.is_listed(path).await? {
                let hint = "hand the file in, use a token with the scope `approve`, or have its folder listed under \
                            `workdirs` in castra.toml";
                return forbidden("a path of the host", Scope::Approve, hint);
            }
            let refuse = |why: &str| {
                let detail = format!("the input {:?}: {path:?} {why}", input.path);
                Err(Error::with_hint(
                    ErrorCode::InvalidRequest,
                    detail,
                    "name what is there by its absolute path",
                ))
            };
            match self.engine.real_path(path).await? {
                None => return refuse("does not exist"),
                Some(real) if Path::new(&real).starts_with(&self.engine.probe.home) => {
                    return refuse("is castra's own");
                }
                // A folder that holds it.
                Some(real) if Path::new(&self.engine.probe.home).starts_with(&real) => {
                    return refuse("holds castra's own");
                }
                Some(real) => *path = real,
            }
        }
        Ok(())
    }
}

//! Files of any length over the bounded requests of [`Files`].

use bytes::{Bytes, BytesMut};
use castra_proto::shim::relay::{At, MAX_DATA};
use uuid::Uuid;

use super::{Files, HostError};

/// Replaces a file of any length: small ones in one request, others through a temporary file beside it.
pub async fn put(files: &dyn Files, at: At, mode: u32, sync: bool, bytes: Bytes) -> Result<(), HostError> {
    if bytes.len() <= MAX_DATA {
        return files.put(at, mode, sync, bytes).await;
    }
    let temp = At { root: at.root.clone(), path: format!("{}.{}.tmp", at.path, Uuid::new_v4().simple()) };
    let result = async {
        let mut offset = 0;
        while offset < bytes.len() {
            let chunk = bytes.slice(offset..bytes.len().min(offset + MAX_DATA));
            let len = chunk.len();
            files.append(temp.clone(), offset as u64, mode, chunk).await?;
            offset += len;
        }
        files.rename(temp.clone(), at, sync).await
    }
    .await;
    if result.is_err() {
        // The first error is the one to tell; a leftover is only a leftover.
        let _ = files.remove(temp).await;
    }
    result
}

/// A whole file of at most `limit` bytes; `None` when it is longer.
pub async fn get(files: &dyn Files, at: At, limit: u64) -> Result<Option<Bytes>, HostError> {
    let mut all = BytesMut::new();
    loop {
        let (data, size) = files.get(at.clone(), all.len() as u64, MAX_DATA as u64).await?;
        if size > limit {
            return Ok(None);
        }
        let more = !data.is_empty();
        all.extend_from_slice(&data);
        if !more || all.len() as u64 >= size {
            return Ok(Some(all.freeze()));
        }
    }
}

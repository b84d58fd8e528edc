//! Downloads: bytes that a supervisor produces, as an attachment under a lease. An answer that is cut is broken
//! off, never ended: a reader must not take a part for the whole.

use super::standing::Lease;
use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use castra_supervisor::ByteStream;
use futures::{Stream, StreamExt, TryStream};
use std::pin::Pin;

/// Why an answer was broken off; seen by nobody but the log.
#[derive(Debug, thiserror::Error)]
pub(super) enum Cut {
    #[error(transparent)]
    Failed(#[from] castra_supervisor::Error),
    #[error("the daemon stops, or the token has ended")]
    LeaseOver,
}

/// The answer that carries a byte stream to its end.
pub(super) fn respond(bytes: ByteStream, media: &'static str, name: &str, lease: Lease) -> Response {
    let pieces =
        futures::stream::unfold(bytes, async |mut bytes| bytes.recv().await.map(|piece| (piece, bytes)));
    let mut response = Response::new(Body::from_stream(under(lease, pieces)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(header::CONTENT_DISPOSITION, attachment(name));
    response
}

/// The pieces, until the lease is over.
pub(super) fn under<S>(lease: Lease, pieces: S) -> impl Stream<Item = Result<Bytes, Cut>> + Send
where
    S: Stream<Item = castra_supervisor::Result<Bytes>> + TryStream + Send + 'static,
{
    struct Under {
        pieces: Pin<Box<dyn Stream<Item = castra_supervisor::Result<Bytes>> + Send>>,
        lease: Lease,
        over: bool,
    }
    let start = Under { pieces: Box::pin(pieces), lease, over: false };
    futures::stream::unfold(start, async |mut under| {
        if under.over {
            return None;
        }
        let piece = tokio::select! {
            _ = under.lease.over() => Err(Cut::LeaseOver),
            piece = under.pieces.next() => piece?.map_err(Cut::from),
        };
        under.over = piece.is_err();
        Some((piece, under))
    })
}

/// `Content-Disposition: attachment` with a name that an agent may have chosen (RFC 6266, RFC 8187).
pub(super) fn attachment(name: &str) -> HeaderValue {
    use std::fmt::Write;
    let plain: String =
        name.chars()
            .map(|char| {
                if char.is_ascii_alphanumeric() || matches!(char, '.' | '-' | '_' | ' ') { char } else { '_' }
            })
            .collect();
    let mut encoded = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_') {
            encoded.push(char::from(byte));
        } else {
            // Into a string; cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    let value = format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}");
    HeaderValue::from_str(&value).unwrap_or(HeaderValue::from_static("attachment"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::standing::Standing;
    use castra_proto::ErrorCode;
    use http_body_util::BodyExt;
    use tokio::sync::mpsc;

    #[test]
    fn a_file_name_cannot_leave_its_quotes() {
        let table = [
            ("a.txt", "attachment; filename=\"a.txt\"; filename*=UTF-8''a.txt"),
            ("ü\".html", "attachment; filename=\"__.html\"; filename*=UTF-8''%C3%BC%22.html"),
            ("a\r\nX: y", "attachment; filename=\"a__X_ y\"; filename*=UTF-8''a%0D%0AX%3A%20y"),
            ("a;b\\c", "attachment; filename=\"a_b_c\"; filename*=UTF-8''a%3Bb%5Cc"),
        ];
        for (name, expected) in table {
            assert_eq!(attachment(name).to_str().unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_cut_is_broken_off() {
        let answer = |standing: &Standing| {
            let (sender, receiver) = mpsc::channel(4);
            (sender, respond(receiver, "text/plain", "x", standing.until_stop()).into_body())
        };
        let standing = Standing::new();
        let (sender, body) = answer(&standing);
        sender.try_send(Ok("all of it".into())).unwrap();
        drop(sender);
        assert_eq!(body.collect().await.unwrap().to_bytes(), "all of it");

        let (sender, mut body) = answer(&standing);
        sender.try_send(Ok("a part".into())).unwrap();
        sender.try_send(Err(castra_supervisor::Error::new(ErrorCode::Internal, "torn"))).unwrap();
        assert!(body.frame().await.unwrap().is_ok());
        assert!(body.frame().await.unwrap().is_err());
        assert!(body.frame().await.is_none());

        let (_sender, mut body) = answer(&standing);
        standing.stop();
        assert!(body.frame().await.unwrap().is_err());
    }
}

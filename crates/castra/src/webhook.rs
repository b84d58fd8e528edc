//! Sends webhooks for the supervisor: HTTP/1.1, over TLS where the URL says so, to the addresses that it was given and to
//! no other. Refuses redirects, proxies and connections that are kept.

use bytes::{Bytes, BytesMut};
use castra_supervisor::{Answered, Outgoing, Post, PostError};
use futures::future::BoxFuture;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{HOST, HeaderName, HeaderValue};
use hyper::rt::{Read, Write};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use std::sync::{Arc, OnceLock};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// What the daemon sends webhooks with.
#[derive(Debug, Default)]
pub struct Sender {
    /// Made when it is needed first: reading the machine's certificates takes a moment.
    tls: OnceLock<Result<Arc<ClientConfig>, PostError>>,
}

impl Post for Sender {
    fn post(&self, request: Outgoing) -> BoxFuture<'_, Result<Answered, PostError>> {
        Box::pin(self.send(request))
    }
}

impl Sender {
    async fn send(&self, outgoing: Outgoing) -> Result<Answered, PostError> {
        let stream = TcpStream::connect(&outgoing.addresses[..])
            .await
            .map_err(|error| failed(format!("{} cannot be reached: {error}", outgoing.authority)))?;
        if !outgoing.tls {
            return exchange(TokioIo::new(stream), outgoing).await;
        }
        let config = self.tls.get_or_init(config).clone()?;
        let name = ServerName::try_from(outgoing.host.clone())
            .map_err(|_| failed(format!("{:?} is no name that a certificate could have", outgoing.host)))?;
        let stream = TlsConnector::from(config)
            .connect(name, stream)
            .await
            .map_err(|error| failed(format!("no TLS with {}: {error}", outgoing.authority)))?;
        exchange(TokioIo::new(stream), outgoing).await
    }
}

/// Trusts whom this machine trusts; where it trusts nobody, whom browsers trust.
fn config() -> Result<Arc<ClientConfig>, PostError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(format!("no TLS: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

async fn exchange(
    io: impl Read + Write + Unpin + Send + 'static,
    outgoing: Outgoing,
) -> Result<Answered, PostError> {
    let lost =
        |error: hyper::Error| failed(format!("the connection to {} was lost: {error}", outgoing.authority));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.map_err(lost)?;
    let connection = tokio::spawn(connection);
    // Ends with this call, also when it is dropped in the middle.
    let _connection = AbortOnDrop(connection);
    let mut request = hyper::Request::new(Full::new(outgoing.body.clone()));
    *request.method_mut() = hyper::Method::POST;
    *request.uri_mut() = outgoing.target.parse().map_err(|_| failed("its path cannot be sent".into()))?;
    let value =
        |text: &str| HeaderValue::from_str(text).map_err(|_| failed("a header cannot be sent".into()));
    request.headers_mut().insert(HOST, value(&outgoing.authority)?);
    for (name, text) in &outgoing.headers {
        let name =
            HeaderName::try_from(name.as_str()).map_err(|_| failed("a header cannot be sent".into()))?;
        request.headers_mut().insert(name, value(text)?);
    }
    let response = sender.send_request(request).await.map_err(lost)?;
    let status = response.status().as_u16();
    let (mut body, mut read) = (response.into_body(), BytesMut::new());
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(lost)?.into_data() else { continue };
        let left = outgoing.limit - read.len();
        read.extend_from_slice(&data[..data.len().min(left)]);
        if read.len() == outgoing.limit {
            break;
        }
    }
    Ok(Answered { status, body: Bytes::from(read) })
}

struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn failed(text: String) -> PostError {
    PostError(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    fn outgoing(address: SocketAddr, tls: bool) -> Outgoing {
        Outgoing {
            tls,
            host: "hooks.example".into(),
            authority: "hooks.example:8080".into(),
            target: "/a?b=c".into(),
            addresses: vec![address],
            headers: vec![("webhook-id".into(), "1".into())],
            body: Bytes::from_static(b"{}"),
            limit: 4,
        }
    }

    /// What was asked, of a server that answers once.
    async fn answered(answer: &'static str) -> (Result<Answered, PostError>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"{}") {
                stream.read_buf(&mut asked).await.unwrap();
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(asked).unwrap()
        });
        let got = Sender::default().post(outgoing(address, false)).await;
        (got, server.await.unwrap())
    }

    #[tokio::test]
    async fn one_post_to_the_address_that_was_given_in_the_name_of_the_host() {
        let (got, asked) = answered("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nshorter").await;
        assert_eq!(got, Ok(Answered { status: 200, body: Bytes::from_static(b"shor") }));
        let expected = "POST /a?b=c HTTP/1.1\r\nhost: hooks.example:8080\r\nwebhook-id: 1\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(asked, expected);
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer_and_is_not_followed() {
        let answer = "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
        let (got, _) = answered(answer).await;
        assert_eq!(got, Ok(Answered { status: 302, body: Bytes::new() }));
    }

    #[tokio::test]
    async fn without_a_certificate_nothing_is_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 3];
            stream.read_exact(&mut asked).await.unwrap();
            asked
        });
        let got = Sender::default().post(outgoing(address, true)).await;
        assert!(got.is_err_and(|error| error.0.starts_with("no TLS with hooks.example:8080")));
        // A handshake of TLS: nothing in the clear.
        assert_eq!(server.await.unwrap()[..2], [0x16, 3]);
    }
}

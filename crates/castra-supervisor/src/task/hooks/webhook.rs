//! A hook that is a URL: to which addresses it may go, what is sent, and what an answer means. Refuses to speak HTTP: that
//! is the business of whoever gave the supervisor a [`Post`].

use super::sign::signature;
use super::{Answer, Said, answer, spec};
use crate::engine::{Engine, now};
use crate::task::reach;
use bytes::Bytes;
use castra_proto::task::Webhook;
use futures::future::BoxFuture;
use std::net::SocketAddr;
use std::time::Duration;
use url::Url;
use uuid::Uuid;

/// Of an answer this much is read, bytes.
const MAX_BODY: usize = 64 << 10;

/// Speaks HTTP for the supervisor.
pub trait Post: Send + Sync {
    /// Sends a POST to one of the addresses and to no other: no redirect, no proxy.
    fn post(&self, request: Outgoing) -> BoxFuture<'_, Result<Answered, PostError>>;
}

/// A POST, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Over TLS, for this host's name.
    pub tls: bool,
    /// As the URL has it; of an IPv6 address without brackets.
    pub host: String,
    /// What `Host` says.
    pub authority: String,
    /// Path and query.
    pub target: String,
    /// Resolved and allowed; tried in this order.
    pub addresses: Vec<SocketAddr>,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    /// Bytes of the answer that are read.
    pub limit: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    pub status: u16,
    pub body: Bytes,
}

/// Why there is no answer, without anything secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PostError(pub String);

/// Posts it once.
pub(super) async fn post(engine: &Engine, webhook: &Webhook, id: Uuid, body: Bytes, limit: Duration) -> Said {
    match tokio::time::timeout(limit, try_post(engine, webhook, id, body)).await {
        Ok(said) => said,
        Err(_) => Err(format!("there was no answer within {} s", limit.as_secs())),
    }
}

async fn try_post(engine: &Engine, webhook: &Webhook, id: Uuid, body: Bytes) -> Said {
    let Some(sender) = engine.config.webhooks.clone() else {
        return Err("nobody here sends webhooks".into());
    };
    let url = spec::address(&webhook.url).map_err(|why| format!("the URL {why}"))?;
    let addresses = reach::addresses(&url, webhook.allow_private).await.map_err(|why| why.to_string())?;
    let request = request(&url, webhook, id, addresses, body, now().0.div_euclid(1_000_000));
    let answered = sender.post(request).await.map_err(|error| error.to_string())?;
    judge(&answered)
}

fn judge(answered: &Answered) -> Said {
    match answered.status {
        // Nothing is said by a 204, whatever comes with it.
        204 => Ok(Answer::Accepted),
        200..=299 => Ok(answer(&String::from_utf8_lossy(&answered.body))),
        status @ 300..=399 => Err(format!("it answered {status}; redirects are not followed")),
        status => Err(format!("it answered {status}")),
    }
}

/// `at`: seconds since 1970.
fn request(
    url: &Url,
    webhook: &Webhook,
    id: Uuid,
    addresses: Vec<SocketAddr>,
    body: Bytes,
    at: i64,
) -> Outgoing {
    let id = id.to_string();
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    let host = url.host_str().unwrap_or_default().to_owned();
    let authority = url.port().map_or_else(|| host.clone(), |port| format!("{host}:{port}"));
    let mut headers: Vec<(String, String)> = webhook.headers.clone().into_iter().collect();
    headers.extend(
        [
            ("content-type", "application/json".to_owned()),
            ("user-agent", concat!("castra/", env!("CARGO_PKG_VERSION")).to_owned()),
            ("webhook-id", id.clone()),
            ("webhook-timestamp", at.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    if !url.username().is_empty() {
        let user = format!("{}:{}", decoded(url.username()), decoded(url.password().unwrap_or_default()));
        headers.push(("authorization".into(), format!("Basic {}", crate::frame::base64(user.as_bytes()))));
    }
    let signed = webhook.secret.as_ref().and_then(|secret| signature(secret, &id, at, &body));
    headers.extend(signed.map(|signed| ("webhook-signature".to_owned(), signed)));
    Outgoing {
        tls: url.scheme() == "https",
        host: host.trim_matches(['[', ']']).to_owned(),
        authority,
        target: format!("{}{query}", url.path()),
        addresses,
        headers,
        body,
        limit: MAX_BODY,
    }
}

/// `%XX` of a URL's user and password.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let hex = text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_sent_with_its_id_its_time_and_its_signature() {
        let webhook = Webhook {
            url: "https://u:p%40q@x.example:8443/a/b?c=d".into(),
            secret: Some("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into()),
            headers: [("X-Team".to_owned(), "blue".to_owned())].into(),
            allow_private: false,
        };
        let address: SocketAddr = "8.8.8.8:8443".parse().unwrap();
        let body = Bytes::from_static(b"{}");
        let sent = request(
            &Url::parse(&webhook.url).unwrap(),
            &webhook,
            Uuid::nil(),
            vec![address],
            body.clone(),
            1_614_265_330,
        );
        let id = Uuid::nil().to_string();
        let signed = signature(webhook.secret.as_deref().unwrap(), &id, 1_614_265_330, &body).unwrap();
        let headers = [
            ("X-Team", "blue"),
            ("content-type", "application/json"),
            ("user-agent", concat!("castra/", env!("CARGO_PKG_VERSION"))),
            ("webhook-id", &id),
            ("webhook-timestamp", "1614265330"),
            ("authorization", "Basic dTpwQHE="),
            ("webhook-signature", &signed),
        ];
        let expected = Outgoing {
            tls: true,
            host: "x.example".into(),
            authority: "x.example:8443".into(),
            target: "/a/b?c=d".into(),
            addresses: vec![address],
            headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
            body,
            limit: MAX_BODY,
        };
        assert_eq!(sent, expected);
    }

    #[test]
    fn only_a_2xx_is_an_answer() {
        let said = |status, body: &'static str| {
            judge(&Answered { status, body: Bytes::from_static(body.as_bytes()) })
        };
        assert_eq!(said(200, "ok"), Ok(Answer::Accepted));
        assert_eq!(said(202, ""), Ok(Answer::Accepted));
        assert_eq!(said(204, "x"), Ok(Answer::Accepted));
        assert_eq!(said(200, "shorter"), Ok(Answer::Text("shorter".into())));
        assert_eq!(said(301, ""), Err("it answered 301; redirects are not followed".into()));
        assert_eq!(said(503, "ok"), Err("it answered 503".into()));
    }
}

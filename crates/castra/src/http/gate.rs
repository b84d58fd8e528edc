//! The one middleware, deny by default: every request passes all of it before any handler sees it.
//!
//! In order: Host (421), Origin (403), token (401), operation (404, 405), scope (403), query names (400),
//! content type (415), length (413). Only what the document calls open to all needs no token. Routes that are added later are covered, because nothing here names one.

use super::auth::{self, Admission, Auth, Grant, Peer};
use super::body::Intake;
use super::origin;
use super::refusal::Refusal;
use super::seats::Seat;
use super::table::{Entry, Operation, Table, Takes};
use super::tickets::Tickets;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use castra_proto::ErrorCode;
use std::sync::Arc;

/// What the gate knows.
pub(super) struct Gate {
    pub(super) auth: Arc<dyn Auth>,
    pub(super) table: Table,
    pub(super) intake: Intake,
    pub(super) tickets: Tickets<Admission>,
}

/// Lets a request through to its handler, or answers in its place.
pub(super) async fn gate(State(gate): State<Arc<Gate>>, mut request: Request, next: Next) -> Response {
    let mut response = match gate.admit(&mut request).await {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    };
    harden(&mut response);
    response
}

impl Gate {
    async fn admit(&self, request: &mut Request) -> Result<(), Refusal> {
        let denied = || Refusal::new(ErrorCode::Forbidden, "the peer is not known");
        let peer = *request.extensions().get::<Peer>().ok_or_else(denied)?;
        origin::check(peer, request.uri(), request.headers())?;
        // Looked at before the token, told only after it: a stranger does not learn which routes there are.
        let operation = self.operation(request);
        let entry = operation.as_ref().map_or(Entry::Token, |operation| operation.entry);
        let grant = match entry {
            Entry::Open => None,
            Entry::Token => Some(auth::grant(&*self.auth, peer, request.headers(), None).await?),
            Entry::Ticket => {
                Some(auth::grant(&*self.auth, peer, request.headers(), Some(&self.tickets)).await?)
            }
        };
        // Strangers stay in the lobby.
        let seat = request.extensions().get::<Seat>().filter(|_| grant.is_some());
        if seat.is_some_and(|seat| !seat.take()) {
            return Err(Refusal::new(ErrorCode::Overloaded, "too many connections"));
        }
        let operation = operation?;
        if let Some(grant) = &grant {
            allow(operation, grant)?;
        }
        check_query(operation, request)?;
        check_body(operation, request)?;
        let intake = self.intake.with_limit(operation.limit);
        if let Some(grant) = grant {
            request.extensions_mut().insert(grant);
        }
        request.extensions_mut().insert(intake);
        Ok(())
    }

    fn operation(&self, request: &Request) -> Result<&Operation, Refusal> {
        let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
        self.table.find(path, request.method()).map_err(|methods| {
            if methods.is_empty() {
                return Refusal::new(ErrorCode::NotFound, "there is no such route")
                    .hint("GET /api/v1/openapi.json lists them");
            }
            let refusal = Refusal::new(ErrorCode::InvalidRequest, format!("this route has {methods}"))
                .status(StatusCode::METHOD_NOT_ALLOWED);
            match HeaderValue::from_str(&methods) {
                Ok(value) => refusal.header(header::ALLOW, value),
                Err(_) => refusal,
            }
        })
    }
}

fn allow(operation: &Operation, grant: &Grant) -> Result<(), Refusal> {
    if grant.hook.is_some() && !operation.hook {
        return Err(Refusal::new(ErrorCode::Forbidden, "a hook's token is for its own task only"));
    }
    if grant.only.is_some() && !operation.bound {
        return Err(Refusal::new(ErrorCode::Forbidden, "the token is bound to one session"));
    }
    if grant.caller.scope < operation.scope {
        let (needed, had) = (operation.scope.as_str(), grant.caller.scope.as_str());
        return Err(Refusal::new(
            ErrorCode::Forbidden,
            format!("this needs the scope `{needed}`; yours is `{had}`"),
        ));
    }
    Ok(())
}

/// Names of query parameters are plain words, so an encoded one is an unknown one.
fn check_query(operation: &Operation, request: &Request) -> Result<(), Refusal> {
    if operation.any_query {
        return Ok(());
    }
    let query = request.uri().query().unwrap_or_default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let name = pair.split_once('=').map_or(pair, |(name, _)| name);
        if !operation.query.contains(name) {
            let detail = format!("unknown query parameter `{}`", name.escape_debug());
            let known = operation.query.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            let refusal = Refusal::new(ErrorCode::UnknownField, detail);
            return Err(if known.is_empty() {
                refusal
            } else {
                refusal.hint(format!("known here: {known}"))
            });
        }
    }
    Ok(())
}

/// A page can send forms and plain text anywhere without asking, but neither of these types.
fn check_body(operation: &Operation, request: &Request) -> Result<(), Refusal> {
    let headers = request.headers();
    let length = headers
        .get(header::CONTENT_LENGTH)
        .map(|value| value.to_str().ok().and_then(|v| v.parse::<u64>().ok()));
    let has_body =
        headers.contains_key(header::TRANSFER_ENCODING) || length.is_some_and(|length| length != Some(0));
    let content_type = headers.get(header::CONTENT_TYPE);
    let wanted = match operation.takes {
        Takes::Json => "application/json",
        Takes::Octets => "application/octet-stream",
    };
    if has_body {
        let mut types = headers.get_all(header::CONTENT_TYPE).iter();
        let media = types.next().and_then(|value| value.to_str().ok());
        let media = media.map(|value| value.split(';').next().unwrap_or_default().trim());
        if types.next().is_some() || !media.is_some_and(|media| media.eq_ignore_ascii_case(wanted)) {
            let sent = content_type.map_or_else(|| "nothing".into(), |value| format!("{value:?}"));
            let detail = format!("the content type of this body must be {wanted}, and says {sent}");
            return Err(
                Refusal::new(ErrorCode::InvalidRequest, detail).status(StatusCode::UNSUPPORTED_MEDIA_TYPE)
            );
        }
    }
    if let Some(Some(length)) = length
        && length > operation.limit
    {
        let detail = format!("the body has {length} bytes; here {} are allowed", operation.limit);
        return Err(Refusal::new(ErrorCode::TooLarge, detail));
    }
    Ok(())
}

/// What every answer says to browsers: run nothing, frame nothing, guess nothing, keep nothing.
fn harden(response: &mut Response) {
    const HEADERS: [(header::HeaderName, &str); 5] = [
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'; sandbox"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in HEADERS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
}

//! `/sign-in`: browsers get in by a ticket from somebody who is in. `/assets`: the files of the built-in page.

use crate::http::api::{Api, Doors, Newcomer};
use crate::http::assets;
use crate::http::auth::{Grant, Peer};
use crate::http::body::Input;
use crate::http::browser;
use crate::http::query::Names;
use crate::http::refusal::{Answer, Refusal};
use axum::extract::{FromRef, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use castra_proto::api::{CreateTicket, CreateToken, SignIn, SignedIn, Ticket, Token};
use castra_proto::{ErrorCode, Timestamp, TokenId};
use castra_supervisor::Supervisor;
use std::time::Duration;
use tokio::time::Instant;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> OpenApiRouter<S>
where
    Api: FromRef<S>,
{
    OpenApiRouter::default().routes(routes!(ticket)).routes(routes!(sign_in)).routes(routes!(asset))
}

/// A ticket that signs one browser in, within 60 s.
///
/// For what the caller has, or less. It belongs into the fragment of a page's address, which browsers send nowhere.
#[utoipa::path(post, path = "/sign-in/tickets", tag = "sign-in", security(("token" = ["read"])),
    request_body = CreateTicket, responses((status = 201, description = "The ticket", body = Ticket)))]
async fn ticket(
    State(api): State<Api>,
    grant: Grant,
    Input(request): Input<CreateTicket>,
) -> Answer<(StatusCode, Json<Ticket>)> {
    let scope = request.scope.unwrap_or(grant.caller.scope);
    if scope > grant.caller.scope {
        let detail = format!("your scope is `{}`, a browser cannot get more", grant.caller.scope.as_str());
        return Err(Refusal::new(ErrorCode::Forbidden, detail));
    }
    if let Some(id) = request.session_id {
        if !grant.may_see(id) {
            return Err(Refusal::new(ErrorCode::SessionNotFound, format!("there is no session `{id}`")));
        }
        api.supervisor.show(id).await?;
    }
    let only = request.session_id.or(grant.only);
    let newcomer = Newcomer { scope, only, maker: grant.token, expires: grant.expires };
    let ticket = api.doors.sign_in.issue(newcomer);
    let expires_at = later(Doors::SIGN_IN);
    Ok((StatusCode::CREATED, Json(Ticket { ticket, scope, session_id: only, expires_at })))
}

/// Sign a browser in.
///
/// The cookie is one half of a new API token, `key` the other. It holds for 12 h, at most as long as the token that
/// its ticket was made with, also when the daemon is another one.
#[utoipa::path(post, path = "/sign-in", tag = "sign-in", security(()),
    request_body = SignIn, responses((status = 201, description = "And a cookie", body = SignedIn)))]
async fn sign_in(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    Input(request): Input<SignIn>,
) -> Answer {
    let newcomer = api.doors.sign_in.redeem(&request.ticket).ok_or_else(|| {
        Refusal::new(ErrorCode::Unauthorized, "this ticket is not known, was used, or is too old")
            .hint("`castra open` makes a new one")
    })?;
    let stay = newcomer.expires.map_or(browser::STAY, |end| browser::STAY.min(end - Instant::now()));
    let create = CreateToken {
        scope: newcomer.scope,
        name: Some(browser::token_name(newcomer.maker)),
        session_id: newcomer.only,
        ttl_s: Some(stay.as_secs()),
    };
    let name = create.name.clone();
    let (created, ended) = api
        .command(async move |supervisor: Supervisor| {
            let ended = forget(&supervisor, name.as_deref()).await?;
            Ok((supervisor.create_token(create).await?, ended))
        })
        .await?;
    for token in ended {
        api.standing.revoke(token);
    }
    let (cookie, key) = browser::split(peer, &created.token)
        .ok_or_else(|| Refusal::new(ErrorCode::InvalidRequest, "browsers sign in over TCP"))?;
    let Token { scope, session_id, expires_at, .. } = created.info;
    let answer = Json(SignedIn { key, scope, session_id, expires_at });
    Ok((StatusCode::CREATED, [(header::SET_COOKIE, cookie)], answer).into_response())
}

/// Browsers of one maker that are signed in at once: an agent may make tickets too.
const BROWSERS: usize = 32;

/// Tokens of browsers that are over, which nobody else would remove, and the oldest of this name when there are
/// too many.
async fn forget(supervisor: &Supervisor, name: Option<&str>) -> castra_supervisor::Result<Vec<TokenId>> {
    let now = later(Duration::ZERO);
    let of_browser = |token: &Token| token.name.as_deref().is_some_and(browser::is_token_name);
    let tokens = supervisor.tokens().await?.into_iter().filter(of_browser);
    let (over, mut live): (Vec<_>, Vec<_>) =
        tokens.partition(|token| token.expires_at.is_some_and(|end| end <= now));
    live.retain(|token| token.name.as_deref() == name);
    live.sort_by_key(|token| token.created_at);
    let too_many = (live.len() + 1).saturating_sub(BROWSERS);
    let ended: Vec<_> = over.iter().chain(live.iter().take(too_many)).map(|token| token.id).collect();
    for id in &ended {
        // Another sign-in may have been faster.
        let _ = supervisor.delete_token(*id).await;
    }
    Ok(ended)
}

fn later(after: Duration) -> Timestamp {
    let after = i64::try_from(after.as_micros()).unwrap_or(i64::MAX);
    Timestamp(jiff::Timestamp::now().as_microsecond().saturating_add(after))
}

/// A file of the built-in page.
#[utoipa::path(get, path = "/assets/{version}/{file}", tag = "sign-in", security(()),
    responses((status = 200, description = "The file", body = Vec<u8>, content_type = "application/octet-stream")))]
async fn asset(names: Names) -> Answer<Response> {
    let (version, file) = (names.get("version"), names.get("file"));
    assets::file(version, file).ok_or_else(|| Refusal::new(ErrorCode::NotFound, "there is no such file"))
}

//! `/tokens`: who may use the API. For admins only.

use crate::http::api::Api;
use crate::http::body::Input;
use crate::http::browser;
use crate::http::query::Names;
use crate::http::refusal::Answer;
use axum::Json;
use axum::extract::{FromRef, State};
use axum::http::StatusCode;
use castra_proto::TokenId;
use castra_proto::api::{CreateToken, CreatedToken, Page, Token};
use castra_supervisor::Supervisor;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> OpenApiRouter<S>
where
    Api: FromRef<S>,
{
    OpenApiRouter::default().routes(routes!(create, list)).routes(routes!(remove))
}

/// Create a token.
///
/// The only answer that ever holds its secret.
#[utoipa::path(post, path = "/tokens", tag = "tokens", security(("token" = ["admin"])),
    request_body = CreateToken, responses((status = 201, description = "The token and its secret", body = CreatedToken)))]
async fn create(
    State(api): State<Api>,
    Input(request): Input<CreateToken>,
) -> Answer<(StatusCode, Json<CreatedToken>)> {
    let created = api.command(async move |supervisor| supervisor.create_token(request).await).await?;
    Ok((StatusCode::CREATED, Json(created)))
}

/// List tokens, without their secrets.
#[utoipa::path(get, path = "/tokens", tag = "tokens", security(("token" = ["admin"])),
    responses((status = 200, description = "All of them", body = Page<Token>)))]
async fn list(State(api): State<Api>) -> Answer<Json<Page<Token>>> {
    Ok(Json(Page { items: api.supervisor.tokens().await?, next: None }))
}

/// Revoke a token.
///
/// Streams that were opened with it end at once, and so do the browsers that were signed in with it.
#[utoipa::path(delete, path = "/tokens/{token_id}", tag = "tokens", security(("token" = ["admin"])),
    responses((status = 204, description = "Revoked")))]
async fn remove(State(api): State<Api>, names: Names) -> Answer<StatusCode> {
    let id = names.id::<TokenId>("token_id")?;
    let browsers = api
        .command(async move |supervisor: Supervisor| {
            let name = browser::token_name(Some(id));
            supervisor.delete_token(id).await?;
            let of_it: Vec<_> = (supervisor.tokens().await?.into_iter())
                .filter(|token| token.name.as_ref() == Some(&name))
                .map(|token| token.id)
                .collect();
            for browser in &of_it {
                supervisor.delete_token(*browser).await?;
            }
            Ok(of_it)
        })
        .await?;
    for token in browsers.into_iter().chain([id]) {
        api.standing.revoke(token);
    }
    Ok(StatusCode::NO_CONTENT)
}

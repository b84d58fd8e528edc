//! `/sessions/{id}/messages`: say something, wait for the answer, take it back.

use crate::http::api::{Api, Target};
use crate::http::auth::Grant;
use crate::http::body::Input;
use crate::http::query::{self, Key, Names, Query, WaitQuery};
use crate::http::refusal::Answer;
use axum::Json;
use axum::extract::{FromRef, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use castra_proto::MessageId;
use castra_proto::api::{Message, MessageAccepted, MessageState, SendMessage};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> OpenApiRouter<S>
where
    Api: FromRef<S>,
{
    OpenApiRouter::default().routes(routes!(send)).routes(routes!(show, withdraw))
}

const AGAIN: &str = "ask for the message again";

/// Send a message.
///
/// It is on disk when this answers. With `Idempotency-Key` a retry is the same message. With `wait` the answer is
/// the message itself: 200 with the result of the turn in which it was delivered, 202 when that is not over.
#[utoipa::path(post, path = "/sessions/{id}/messages", tag = "messages", security(("token" = ["drive"])),
    params(WaitQuery, Key),
    request_body = SendMessage,
    responses((status = 202, description = "Accepted; with `wait` a Message", body = MessageAccepted),
        (status = 200, description = "With `wait`: what became of it", body = Message)))]
async fn send(
    State(api): State<Api>,
    grant: Grant,
    Target(id): Target,
    Query(query): Query<WaitQuery>,
    Key(key): Key,
    Input(message): Input<SendMessage>,
) -> Answer {
    let timeout = query::wait(query.wait, AGAIN)?;
    let caller = grant.caller.clone();
    let accepted = api
        .command(async move |supervisor| supervisor.send(id, message, key.as_deref(), &caller).await)
        .await?;
    let Some(timeout) = timeout else { return Ok((StatusCode::ACCEPTED, Json(accepted)).into_response()) };
    match api.waited(&grant, api.supervisor.wait(id, accepted.message_id, timeout)).await? {
        Some(message) => Ok(answer(message)),
        None => Ok((StatusCode::ACCEPTED, Json(accepted)).into_response()),
    }
}

/// Show a message and what became of it.
#[utoipa::path(get, path = "/sessions/{id}/messages/{message_id}", tag = "messages", security(("token" = ["read"])),
    params(WaitQuery),
    responses((status = 200, description = "The message", body = Message),
        (status = 202, description = "With `wait`: the message, not answered yet", body = Message)))]
async fn show(
    State(api): State<Api>,
    grant: Grant,
    Target(id): Target,
    names: Names,
    Query(query): Query<WaitQuery>,
) -> Answer {
    let message = names.id::<MessageId>("message_id")?;
    if let Some(timeout) = query::wait(query.wait, AGAIN)?
        && let Some(message) = api.waited(&grant, api.supervisor.wait(id, message, timeout)).await?
    {
        return Ok(answer(message));
    }
    Ok(Json(api.supervisor.message(id, message).await?).into_response())
}

/// Withdraw a message that was not delivered yet.
#[utoipa::path(delete, path = "/sessions/{id}/messages/{message_id}", tag = "messages", security(("token" = ["drive"])),
    responses((status = 200, description = "The message, withdrawn", body = Message)))]
async fn withdraw(
    State(api): State<Api>,
    grant: Grant,
    Target(id): Target,
    names: Names,
) -> Answer<Json<Message>> {
    let message = names.id::<MessageId>("message_id")?;
    Ok(Json(
        api.command(async move |supervisor| supervisor.withdraw(id, message, &grant.caller).await).await?,
    ))
}

fn answer(message: Message) -> Response {
    let status = match message.state {
        MessageState::Answered | MessageState::Interrupted | MessageState::Withdrawn => StatusCode::OK,
        MessageState::Queued | MessageState::Written | MessageState::Delivered => StatusCode::ACCEPTED,
    };
    (status, Json(message)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use castra_proto::SessionId;

    #[test]
    fn a_wait_that_is_not_over_answers_202() {
        let status = |state| {
            let (message_id, session_id) = (MessageId::now(), SessionId::now());
            answer(Message { message_id, session_id, state, seq: 1, result: None }).status().as_u16()
        };
        assert_eq!(MessageState::ALL.map(status), [202, 202, 202, 200, 200, 200]);
    }
}

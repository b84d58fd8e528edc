//! How the API says no: every error leaves as `application/problem+json`. Refuses to decide who is refused.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use castra_proto::{ErrorCode, Problem};

/// A handler's answer.
pub(super) type Answer<T = Response> = Result<T, Refusal>;

/// A problem on its way out, with the headers that belong to its status.
#[derive(Debug)]
pub(super) struct Refusal {
    problem: Box<Problem>,
    header: Option<(HeaderName, HeaderValue)>,
}

impl Refusal {
    pub(super) fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Problem::new(code, detail).into()
    }

    /// For what HTTP has a status for and castra's list no code (405, 415, 421): the nearest code, that status.
    pub(super) fn status(mut self, status: StatusCode) -> Self {
        self.problem.status = status.as_u16();
        self
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.problem.hint = Some(hint.into());
        self
    }

    pub(super) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some((name, value));
        self
    }

    pub(super) fn problem(&self) -> &Problem {
        &self.problem
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self { problem: Box::new(problem), header: None }
    }
}

impl From<castra_supervisor::Error> for Refusal {
    fn from(error: castra_supervisor::Error) -> Self {
        let problem = error.problem();
        if problem.code == ErrorCode::Internal {
            tracing::error!(%error, "a request failed inside castra");
        }
        problem.into()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self.problem).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() =
            StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match self.problem.code {
            // RFC 9110 §11.6.1: a 401 names its scheme.
            ErrorCode::Unauthorized => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            ErrorCode::Overloaded | ErrorCode::RateLimited => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        if let Some((name, value)) = self.header {
            headers.insert(name, value);
        }
        response
    }
}

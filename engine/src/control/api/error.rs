//! Errors of the control socket: JSON `{"message"}`, and the kind in a header, as SES has them.

use super::types::{ERROR_HEADER, ErrorBody};
use axum::{
    Json,
    extract::rejection::{JsonRejection, PathRejection, QueryRejection},
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};

/// Why a request was refused.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    kind: &'static str,
    message: String,
}

impl ApiError {
    /// In words.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// What was sent is wrong.
    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, kind: "BadRequestException", message: message.into() }
    }

    /// There is such a thing already.
    pub(crate) fn exists(message: impl Into<String>) -> Self {
        Self { kind: "AlreadyExistsException", ..Self::bad(message) }
    }

    /// There would be too many.
    pub(crate) fn limit(message: impl Into<String>) -> Self {
        Self { kind: "LimitExceededException", ..Self::bad(message) }
    }

    /// There is no such thing.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, kind: "NotFoundException", message: message.into() }
    }

    /// A token that was not given out here.
    pub(crate) fn bad_token() -> Self {
        Self { kind: "InvalidNextTokenException", ..Self::bad("NextToken is not one that was given out here.") }
    }

    /// It is our fault.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            kind: "InternalServiceErrorException",
            message: message.into(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, [(ERROR_HEADER, self.kind)], Json(ErrorBody { message: self.message })).into_response()
    }
}

impl From<JsonRejection> for ApiError {
    fn from(why: JsonRejection) -> Self {
        Self { status: why.status(), ..Self::bad(format!("the request is not as expected: {}", why.body_text())) }
    }
}

impl From<PathRejection> for ApiError {
    fn from(why: PathRejection) -> Self {
        Self::bad(why.body_text())
    }
}

impl From<QueryRejection> for ApiError {
    fn from(why: QueryRejection) -> Self {
        Self::bad(why.body_text())
    }
}

pub(super) async fn no_such_path(uri: Uri) -> ApiError {
    ApiError::not_found(format!("there is no {}; see the README for the paths of the control socket", uri.path()))
}

pub(super) async fn no_such_method(method: Method, uri: Uri) -> ApiError {
    let status = StatusCode::METHOD_NOT_ALLOWED;
    ApiError { status, ..ApiError::bad(format!("{} cannot be asked by {method}", uri.path())) }
}

//! Every error answer, in fleet 1.0's form: `{"error":{"code":404,"message":"…"}}`. The one place that maps errors to statuses.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use fleet_core::wire::{ErrorBody, ErrorDetail};
use tracing::{error, warn};

use crate::store::StoreError;

/// A status and one sentence.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    message: String,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> ApiError {
        ApiError { status, message: message.into() }
    }

    pub(super) fn invalid(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn conflict(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::CONFLICT, message)
    }

    /// The sentence.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    pub(super) fn no_such_unit() -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, "unit does not exist")
    }
}

impl From<StoreError> for ApiError {
    fn from(problem: StoreError) -> ApiError {
        let message = problem.to_string();
        match problem {
            StoreError::Unavailable(_) | StoreError::Compacted(_) | StoreError::LeaseExpired => {
                warn!("{message}");
                // fleet 1.0's words: its clients know them.
                ApiError::new(StatusCode::SERVICE_UNAVAILABLE, format!("fleet server unable to communicate with etcd: {message}"))
            }
            StoreError::Conflict(_) => ApiError::conflict(format!("{message}; try again")),
            StoreError::TooLarge { .. } => ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message),
            StoreError::Corrupt { .. } | StoreError::Refused(_) => {
                error!("{message}");
                ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, message)
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = ErrorBody { error: ErrorDetail { code: self.status.as_u16(), message: self.message } };
        (self.status, Json(body)).into_response()
    }
}

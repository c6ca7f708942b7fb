//! Every error answer, in fleet 1.0's form: `{"error":{"code":404,"message":"…"}}`. The one place
//! that maps errors to statuses.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use fleet_core::wire::{ErrorBody, ErrorDetail};
use tracing::{error, warn};

use crate::store::StoreError;

/// What a 503 says, in fleet 1.0's words: its clients know them.
pub(super) const UNAVAILABLE: &str = "fleet server unable to communicate with etcd";

/// A status and one sentence, with the reason where the sentence is fleet 1.0's.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    message: String,
    detail: Option<String>,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> ApiError {
        ApiError { status, message: message.into(), detail: None }
    }

    pub(super) fn invalid(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn conflict(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::CONFLICT, message)
    }

    /// Adds what the sentence does not say; nothing if that is empty.
    pub(super) fn because(self, detail: String) -> ApiError {
        ApiError { detail: Some(detail).filter(|detail| !detail.is_empty()), ..self }
    }

    /// What another fleetd answered, as it is.
    pub(super) fn of_peer(status: StatusCode, error: ErrorDetail) -> ApiError {
        ApiError { status, message: error.message, detail: error.detail }
    }

    /// The HTTP status.
    pub(super) fn status(&self) -> StatusCode {
        self.status
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
                ApiError {
                    detail: Some(message),
                    ..ApiError::new(StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE)
                }
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
        let ApiError { status, message, detail } = self;
        let body = ErrorBody { error: ErrorDetail { code: status.as_u16(), message, detail } };
        (status, Json(body)).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_store_that_is_away_is_said_in_fleet_1_0s_words_and_why_beside_them() {
        let answer = ApiError::from(StoreError::Unavailable("10.0.0.1:2379 refuses".to_string()))
            .into_response();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        let body = axum::body::to_bytes(answer.into_body(), 1024).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["error"]["message"], "fleet server unable to communicate with etcd");
        assert!(
            body["error"]["detail"].as_str().unwrap().contains("10.0.0.1:2379 refuses"),
            "{body}"
        );
    }
}

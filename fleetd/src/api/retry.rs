//! Writes that compare: what somebody else overtook is read, checked and written again.

use super::error::ApiError;
use super::submission::Failed;
use crate::store::StoreError;

/// How often a write is tried that is overtaken each time.
const ATTEMPTS: usize = 8;

/// What `attempt` answers, which reads, checks, and compares when it writes; `what` names the
/// document for the one whose every attempt was overtaken.
pub(super) async fn until_not_overtaken<T, A: Future<Output = Result<T, Failed>>>(
    what: &str,
    mut attempt: impl FnMut() -> A,
) -> Result<T, ApiError> {
    for _ in 0..ATTEMPTS {
        match attempt().await {
            Err(Failed::Store(StoreError::Conflict(_))) => {}
            Err(Failed::Store(error)) => return Err(error.into()),
            Err(Failed::Refused(error)) => return Err(error),
            Ok(done) => return Ok(done),
        }
    }
    Err(StoreError::Conflict(what.to_string()).into())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn only_what_was_overtaken_is_tried_again_and_not_for_ever() {
        let tries = Cell::new(0);
        let run = async |overtaken: usize, then: fn() -> Result<u8, Failed>| {
            tries.set(0);
            until_not_overtaken("the unit x", || {
                tries.set(tries.get() + 1);
                let answer = match tries.get() <= overtaken {
                    true => Err(StoreError::Conflict("it".to_string()).into()),
                    false => then(),
                };
                async { answer }
            })
            .await
        };
        assert_eq!(run(ATTEMPTS - 1, || Ok(7)).await.ok(), Some(7));
        let Err(error) = run(usize::MAX, || Ok(7)).await else { panic!("it gives up") };
        assert!(error.message().contains("the unit x"), "{}", error.message());
        assert_eq!(tries.get(), ATTEMPTS);
        let refused = run(0, || Err(Failed::Refused(ApiError::conflict("no")))).await;
        assert_eq!(
            (refused.err().map(|error| error.message().to_string()), tries.get()),
            (Some("no".to_string()), 1)
        );
    }
}

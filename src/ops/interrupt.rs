//! Somebody wants to stop.

use tokio_util::sync::CancellationToken;

use crate::ops::OpsError;

/// What `work` gives, unless somebody wants to stop before that. Only for what may be given up at any of its waits, because nothing
/// that it does has to be finished.
pub async fn unless_interrupted<T>(
    cancel: &CancellationToken,
    work: impl Future<Output = Result<T, OpsError>>,
) -> Result<T, OpsError> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(OpsError::Interrupted),
        done = work => done,
    }
}

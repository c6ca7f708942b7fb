//! What a panic ends. The parts of fleetd rely on each other, so a panic in one ends the process:
//! systemd starts it again, and no unit notices. Contained are what a document, a file or a request
//! may set off again and again: planning, reading the embedded store, and the answer to one
//! request.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use tokio::task::JoinHandle;

use super::clock;

tokio::task_local! {
    /// Set while a future runs whose panic is contained.
    static CONTAINED: ();
}

/// From now on a panic ends the process, unless it is [`contained`]. For `main` only: tests have
/// ways of their own.
pub fn end_the_process() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        if CONTAINED.try_with(|()| ()).is_err() {
            std::process::abort();
        }
    }));
}

/// What `part` answers, or the message of its panic. The state that `part` leaves must be its own,
/// or be read anew by whoever goes on.
pub async fn contained<T>(part: impl Future<Output = T>) -> Result<T, String> {
    let outcome = AssertUnwindSafe(CONTAINED.scope((), part)).catch_unwind().await;
    outcome.map_err(|panic| message(&*panic))
}

/// The same for work that blocks, on a thread of its own.
pub async fn contained_work<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let work =
        move || std::panic::catch_unwind(AssertUnwindSafe(|| CONTAINED.sync_scope((), work)));
    if clock::is_simulated() {
        return work().map_err(|panic| message(&*panic));
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome.map_err(|panic| message(&*panic)),
        Err(ended) => Err(ended.to_string()),
    }
}

/// The same in a task of its own, which is what goes on with an answer after its first bytes.
pub fn spawn_contained<T: Send + 'static>(
    part: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<Result<T, String>> {
    tokio::spawn(contained(clock::by_this_clock(part)))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;

    #[tokio::test]
    async fn a_contained_panic_is_an_error_with_its_message() {
        assert_eq!(contained(async { 7 }).await, Ok(7));
        let text = String::from("overflow");
        assert_eq!(
            contained(async { panic!("{text}") }).await.map(|(): ()| ()),
            Err("overflow".to_string())
        );
        assert_eq!(
            contained_work(|| panic!("short")).await.map(|(): ()| ()),
            Err("short".to_string())
        );
        assert_eq!(
            spawn_contained(async { panic!("aside") }).await.unwrap().map(|(): ()| ()),
            Err("aside".to_string())
        );
    }

    /// The child of the next test: which panic it has is in its environment.
    #[test]
    fn child_that_panics() {
        let Ok(kind) = std::env::var("FLEET_TEST_PANIC") else { return };
        end_the_process();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let task = match kind.as_str() {
                "contained" => tokio::spawn(async {
                    assert!(contained(async { panic!("within") }).await.map(|(): ()| ()).is_err());
                    assert!(
                        contained_work(|| panic!("on a thread")).await.map(|(): ()| ()).is_err()
                    );
                    assert!(
                        spawn_contained(async { panic!("aside") })
                            .await
                            .unwrap()
                            .map(|(): ()| ())
                            .is_err()
                    );
                }),
                _ => tokio::spawn(async { panic!("in a task") }),
            };
            task.await.unwrap();
        });
    }

    #[test]
    fn a_panic_ends_the_process_unless_it_is_contained() {
        let child = |kind| {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command
                .args(["--exact", "process::panics::tests::child_that_panics", "--nocapture"])
                .env("FLEET_TEST_PANIC", kind);
            command.output().unwrap()
        };
        let contained = child("contained");
        assert!(contained.status.success(), "{contained:?}");
        let ended = child("task");
        assert_eq!(ended.status.signal(), Some(6), "{ended:?}");
        assert!(String::from_utf8_lossy(&ended.stderr).contains("in a task"), "{ended:?}");
    }
}

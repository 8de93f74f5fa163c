//! Tasks that nobody waits for.

use smol::LocalExecutor;
use smol::future::FutureExt as _;

/// Runs a future until it ends. All tasks are of one type, so that a task's machinery is compiled once and not for each
/// future.
pub(crate) fn spawn(executor: &LocalExecutor<'static>, future: impl Future<Output = ()> + 'static) {
    executor.spawn(future.boxed_local()).detach();
}

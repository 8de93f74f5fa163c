//! Tasks whose end no other task waits for.

use smol::LocalExecutor;
use smol::future::FutureExt as _;

/// Starts a task that runs a future to its end. All tasks have one type, so that the code of a task
/// is compiled once and not for each future.
pub(crate) fn spawn(executor: &LocalExecutor<'static>, future: impl Future<Output = ()> + 'static) {
    executor.spawn(future.boxed_local()).detach();
}

//! Tasks that run in the background: no other task waits for their end.

use smol::LocalExecutor;
use smol::future::FutureExt as _;

/// Starts a task of `executor` that runs `future` to its end in the background. Boxes the future,
/// so that all tasks have one type and their code is compiled once.
pub(crate) fn spawn(executor: &LocalExecutor<'static>, future: impl Future<Output = ()> + 'static) {
    executor.spawn(future.boxed_local()).detach();
}

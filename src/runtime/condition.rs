//! Tasks of one thread that wait for state to change.

use std::cell::RefCell;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

/// Where tasks wait; whoever changes what they look at says so.
#[derive(Debug, Default)]
pub(crate) struct Condition {
    waiting: RefCell<Vec<Waker>>,
}

impl Condition {
    /// Waits until `holds` does.
    pub(crate) async fn until(&self, holds: impl Fn() -> bool) {
        poll_fn(|cx| {
            if holds() {
                return Poll::Ready(());
            }
            self.wait(cx);
            Poll::Pending
        })
        .await;
    }

    /// Has the task of `cx` woken at the next change.
    pub(crate) fn wait(&self, cx: &Context<'_>) {
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
    }

    /// Wakes all that wait.
    pub(crate) fn changed(&self) {
        self.waiting.take().into_iter().for_each(Waker::wake);
    }
}

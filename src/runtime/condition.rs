//! Conditions: a task waits for a change of state that another task of the same thread makes.

use std::cell::RefCell;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

/// Queue of tasks that wait for a change of some state of the program. Code that changes this state
/// calls [`Condition::changed`].
#[derive(Debug, Default)]
pub(crate) struct Condition {
    waiting: RefCell<Vec<Waker>>,
}

impl Condition {
    /// Waits until the function `holds` returns `true`. Calls `holds` at once, and again after each
    /// [`Condition::changed`].
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

    /// Registers the task of `cx` to be woken by the next [`Condition::changed`].
    pub(crate) fn wait(&self, cx: &Context<'_>) {
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
    }

    /// Wakes all tasks that wait for a change of state.
    pub(crate) fn changed(&self) {
        self.waiting.take().into_iter().for_each(Waker::wake);
    }
}

//! Panics of the engines, turned into errors.
//!
//! redb and sled panic on files that something else has changed. Such a file is no broken
//! invariant of this program: it is damage, and the state can be built again. So every call into
//! an engine runs [`contained`], and nothing else does: our own code is never under it, because
//! there a panic has to stop the program. The program's panic hook tells the two apart by
//! [`engine_at_work`].

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};

use kine2_mvcc::BackendError;

thread_local! {
    static ENGINE_AT_WORK: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside an engine, where a panic becomes [`BackendError::Damaged`].
///
/// A panic hook that aborts must let these pass.
#[must_use]
pub fn engine_at_work() -> bool {
    // During the end of a thread nothing is contained any more.
    ENGINE_AT_WORK.try_with(Cell::get).unwrap_or(false)
}

/// Runs a call into an engine; its panic is damage. After one, the engine is only to be dropped.
pub(crate) fn contained<T>(
    work: impl FnOnce() -> Result<T, BackendError>,
) -> Result<T, BackendError> {
    let outer = ENGINE_AT_WORK.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    ENGINE_AT_WORK.set(outer);
    outcome.unwrap_or_else(|panic| Err(BackendError::Damaged(text_of(&*panic))))
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    format!("the engine panicked: {}", text.unwrap_or("without a word"))
}

/// Something of an engine whose drop is a call into it as well.
pub(crate) struct DropContained<T>(Option<T>);

impl<T> DropContained<T> {
    pub(crate) const fn new(inner: T) -> Self {
        Self(Some(inner))
    }
}

impl<T> Deref for DropContained<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("it is there until it is dropped")
    }
}

impl<T: fmt::Debug> fmt::Debug for DropContained<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T> Drop for DropContained<T> {
    fn drop(&mut self) {
        let inner = self.0.take();
        // What was durable is so already; what cannot be closed is found when it is opened.
        let _ = contained(|| {
            drop(inner);
            Ok(())
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_damage_and_its_words_are_kept() {
        for (panic, words) in [
            (
                (|| panic!("page {} is odd", 7)) as fn() -> (),
                "page 7 is odd",
            ),
            (|| panic!("odd"), "odd"),
            (|| std::panic::panic_any(7), "without a word"),
        ] {
            let error = contained(|| {
                assert!(engine_at_work());
                panic();
                Ok(())
            });
            let text = error.unwrap_err().to_string();
            assert!(text.contains(words), "{text}");
            assert!(!engine_at_work());
        }
    }

    #[test]
    fn what_panics_when_dropped_does_so_alone() {
        struct Bad;
        impl Drop for Bad {
            fn drop(&mut self) {
                assert!(!engine_at_work(), "a close that fails");
            }
        }
        drop(DropContained::new(Bad));
        assert!(!engine_at_work());
    }
}

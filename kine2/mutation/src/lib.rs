//! Rules of the product broken on purpose, one at a time, to see that its tests notice.
//!
//! The place that keeps a rule asks [`mutated`] whether it is the one to be broken. Without the
//! feature `on`, which only tests ask for, the answer is the constant `false`, and the compiler
//! leaves nothing of it. With it a test names the mutation for what it runs on its own thread.
//!
//! This is the one list: what the mutations are, which rule each breaks, and whether a test must
//! find it. What found them is written down in `docs/mutations.md`.

#[cfg(feature = "on")]
mod hunt;
mod list;

pub use list::{Expected, Mutation, Room};

#[cfg(feature = "on")]
mod chosen {
    use std::cell::Cell;

    use crate::Mutation;

    std::thread_local! {
        static CHOSEN: Cell<Option<Mutation>> = const { Cell::new(None) };
    }

    /// True if this thread runs with the mutation.
    #[must_use]
    pub fn mutated(mutation: Mutation) -> bool {
        CHOSEN.get() == Some(mutation)
    }

    /// Runs `test` on this thread with the rule broken, also if it panics.
    pub fn with<T>(mutation: Mutation, test: impl FnOnce() -> T) -> T {
        struct Restored(Option<Mutation>);
        impl Drop for Restored {
            fn drop(&mut self) {
                CHOSEN.set(self.0);
            }
        }
        let _restored = Restored(CHOSEN.replace(Some(mutation)));
        test()
    }
}

#[cfg(feature = "on")]
pub use hunt::{asked, hunt};

#[cfg(feature = "on")]
pub use chosen::{mutated, with};

/// True if the rule is to be broken; never, without the feature `on`.
#[cfg(not(feature = "on"))]
#[inline(always)]
#[must_use]
pub const fn mutated(_: Mutation) -> bool {
    false
}

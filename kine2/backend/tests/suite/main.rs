//! One suite for every backend: in memory, redb, and with the feature, sled.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests: what fails here fails the test, and figures are shown"
)]

#[path = "../common/mod.rs"]
mod common;

mod damage;
mod model;
mod readers;
mod stream;
mod subject;

use subject::{Kind, Subject};

/// Makes a test of each case for each backend.
macro_rules! suite {
    ($($module:ident :: $case:ident),* $(,)?) => {
        mod mem {
            $(#[test] fn $case() { crate::$module::$case(crate::Kind::Mem); })*
        }
        mod redb {
            $(#[test] fn $case() { crate::$module::$case(crate::Kind::Disk(kine2_backend::EngineKind::Redb)); })*
        }
        #[cfg(feature = "sled")]
        mod sled {
            $(#[test] fn $case() { crate::$module::$case(crate::Kind::Disk(kine2_backend::EngineKind::Sled)); })*
        }
    };
}

suite! {
    model::fresh_state_is_empty,
    model::random_batches_read_as_the_model_says,
    model::one_change_a_batch,
    model::big_records,
    model::many_small_records,
    model::compaction_frees_space,
    model::removing_what_is_not_there_does_nothing,
    model::a_change_added_and_removed_in_one_batch_never_shows,
    model::history_pages_are_whole_transactions,
    model::history_of_a_rare_key_comes_in_bounded_steps,
    model::cells_are_set_and_deleted,
    model::defragment_changes_nothing_that_is_read,
    readers::readers_see_whole_states_while_the_writer_works,
    stream::a_state_survives_export_and_import,
    stream::import_needs_an_empty_backend,
}

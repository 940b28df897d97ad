//! Every scenario in its short form.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]
#![expect(clippy::print_stdout, reason = "the figures")]

use kine2_crash::block_on;
use kine2_crash::faults::{Depth, find};
use kine2_crash::rng::Rng;

fn run(name: &str) {
    let scenario = find(name).unwrap();
    match block_on((scenario.run)(Depth::Short, Rng::new(1))).unwrap() {
        Ok(seen) => println!("{name}: {seen}"),
        Err(error) => panic!("{name}, seed 1: {error:#}"),
    }
}

macro_rules! scenarios {
    ($($test:ident => $name:literal,)*) => {
        $(#[test] fn $test() { run($name); })*

        #[test]
        fn none_is_left_out() {
            let tested = [$($name),*];
            let all = kine2_crash::faults::ALL.iter().map(|scenario| scenario.name);
            assert!(all.eq(tested));
        }
    };
}

scenarios! {
    a_failed_flush_of_the_log_is_final => "fsync-log",
    a_failed_flush_of_the_state_is_final => "fsync-state",
    a_failed_write_of_the_log_is_final => "write-log",
    a_failed_write_of_the_state_is_final => "write-state",
    a_failed_rename_in_the_log_is_final => "name-log",
    a_segment_that_cannot_be_made_is_final => "spare-log",
    writes_may_come_back_short => "short-writes",
    a_log_without_space_loses_nothing => "enospc-log",
    a_log_without_a_next_segment_refuses_and_goes_on => "enospc-spare",
    a_state_without_space_loses_nothing => "enospc-state",
    a_full_file_system_loses_nothing => "enospc-real",
    a_read_only_file_system_is_named => "read-only",
    reads_and_events_do_not_wait_for_a_slow_log => "slow-log",
    nobody_waits_for_a_slow_state => "slow-state",
    leases_outlive_a_frozen_process => "frozen",
    a_torn_tail_is_cut => "torn-tail",
    a_flipped_bit_is_refused_with_its_place => "bit-flips",
    a_directory_has_one_user => "in-use",
    a_stop_under_load_leaves_nothing_to_replay => "sigterm",
}

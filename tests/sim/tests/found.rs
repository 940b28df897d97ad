//! Bugs that seeds found, each played by a script of its own: seeds change their meaning with the
//! simulator, these do not.

use std::time::Duration;

use kine2_sim::history::{Ask, Put};
use kine2_sim::plan::{Plan, ms};
use kine2_sim::scripts::{ask, life_of, pair, patient};
use kine2_wal::fake::Operation;

#[test]
fn a_node_with_much_to_apply_takes_it_from_the_log_in_portions_while_new_entries_come() {
    let mut world = pair(Plan::calm());
    world.clients.stopped = false;
    // Its state falls back to nothing, its log does not.
    for c in 0..2 {
        world.ask(c, Ask::Get(None));
    }
    world.run_for(ms(3_000));
    world.cut_power(1);
    world.run_for(ms(100));
    world.start(1);
    world.run_until(ms(20_000), "all is applied while clients write", |world| {
        let applied = |n: usize| {
            let process: Option<&kine2_sim::process::Process> = world.machines[n].process.as_ref();
            process.map(|process| process.applied().0)
        };
        world.is_mirrored() && applied(1).is_some_and(|b| Some(b + 5) >= applied(0))
    });
}

#[test]
fn a_node_with_a_failed_disk_does_not_wake_for_a_lease_it_may_not_end() {
    let mut world = pair(Plan::calm());
    ask(&mut world, Ask::Grant(1));
    // Nobody takes over what it has.
    world.network.cut(0, 1);
    world.cut_witness(0);
    world.crash_witness(0);
    world.crash_witness(1);
    let disk = &world.machines[0].disk;
    disk.fail_nth(Operation::Sync, 1, std::io::ErrorKind::Other);
    let (key, value, lease) = (0, 1_000_000, 0);
    world.ask(0, Ask::Put(Put { key, value, lease }));
    world.run_for(ms(12_000));
    let events = world.events;
    world.run_for(ms(1_000));
    assert!(world.events - events < 1_000, "it turns in circles");
}

#[test]
fn a_renewal_counts_from_its_answer_when_the_clock_jumps_before() {
    let mut world = pair(patient());
    ask(&mut world, Ask::Grant(1));
    world.run_for(ms(1_000));
    let answered = world.clients.answered;
    world.ask(0, Ask::Renew(1));
    // The request is there, its confirmation is not.
    world.run_for(Duration::from_micros(500));
    assert_eq!(world.clients.answered, answered);
    world.machines[0].skew += ms(20_000);
    world.clients.leases.on_jump();
    world.run_until(ms(1_000), "the renewal is answered", |world| {
        world.clients.answered > answered
    });
    let life = life_of(&mut world, 1, ms(40_000));
    assert!(life >= ms(3_900), "renewed for 4 s, it lives for {life:?}");
}

/// Of bugs: a standstill that was given to leases twice, a long log that kept heartbeats back, a
/// silence whose end took the leases that were due in it, a lease that was gone, it was said, while a
/// node became primary.
#[test]
fn every_script_ends_well() {
    for (_, play) in kine2_sim::scripts::ALL {
        play();
    }
}

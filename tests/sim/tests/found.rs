//! Bugs that seeds found, each played by a script of its own: seeds change their meaning with the
//! simulator, these do not.

use std::time::Duration;

use kine2_replication::{Arbiter, LonePolicy};
use kine2_sim::history::{Ask, Put};
use kine2_sim::plan::{Plan, ms};
use kine2_sim::world::World;
use kine2_wal::fake::Operation;

/// A pair that is mirrored, `a` primary, with clients that ask for nothing by themselves.
fn pair(plan: Plan) -> World {
    let is_lone = plan.arbiter == Arbiter::None(LonePolicy::Stop);
    let mut world = World::new(plan);
    if is_lone {
        world.set_up_mirror();
    }
    world.add_client();
    world.add_client();
    world.run_until(ms(20_000), "a pair", |world| {
        world.is_mirrored() && world.primary() == Some(0)
    });
    rest(&mut world);
    world
}

fn rest(world: &mut World) {
    world.clients.stopped = true;
    world.run_until(ms(10_000), "clients rest", |world| world.clients.are_idle());
}

/// Asks and waits for the end of it.
fn ask(world: &mut World, ask: Ask) {
    world.ask(0, ask);
    world.run_until(ms(10_000), "an answer", |world| world.clients.are_idle());
}

fn ttl_at(world: &World, n: usize, lease: i64) -> Option<i64> {
    let process = world.machines[n].process.as_ref();
    process.expect("it is up").node.store().lease_ttl(lease)
}

/// How long the lease lives from now on.
fn life_of(world: &mut World, lease: i64, most: Duration) -> Duration {
    let from = world.now;
    world.run_until(most, "the lease ends", |world| {
        ttl_at(world, 0, lease).is_none()
    });
    world.now - from
}

/// Without a witness and by the policy `stop` no node is ever taken for lost.
fn patient() -> Plan {
    Plan {
        arbiter: Arbiter::None(LonePolicy::Stop),
        ..Plan::calm()
    }
}

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

#[test]
fn a_standstill_is_given_to_leases_once() {
    let mut world = pair(patient());
    ask(&mut world, Ask::Grant(1));
    world.freeze(0, ms(10_000));
    let life = life_of(&mut world, 1, ms(60_000));
    assert!(
        (ms(13_500)..ms(15_500)).contains(&life),
        "4 s and a standstill of 10 s, it lives for {life:?}"
    );
}

/// What has to be applied first kept heartbeats back: a primary with a long log was taken for dead
/// while it read that, and so was the next one.
#[test]
fn a_node_that_applies_a_long_log_stays_in_touch() {
    let mut world = pair(Plan {
        flush_max: ms(40),
        checkpoint_every: Duration::from_secs(3_600),
        ..Plan::calm()
    });
    world.clients.stopped = false;
    for c in 0..2 {
        world.ask(c, Ask::Get(None));
    }
    world.run_for(ms(30_000));
    rest(&mut world);
    for n in 0..2 {
        world.cut_power(n);
    }
    let before = world.config().id();
    for n in 0..2 {
        world.start(n);
    }
    world.run_for(ms(10_000));
    assert_eq!(world.config().id(), before, "{}", world.story);
    let applied = world.machines[0].process.as_ref().map(|p| p.applied().0);
    assert!(applied > Some(500), "much was to be applied: {applied:?}");
}

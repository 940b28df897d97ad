//! Short stories without chance, each for a rule that seeds hardly put to the test.

use std::time::Duration;

use kine2_mvcc::AlarmKind;
use kine2_replication::{Arbiter, LonePolicy};

use crate::alarms::Alarm;
use crate::history::{Ask, LeaseId, Put};
use crate::plan::{Plan, ms};
use crate::world::World;

/// All of them, by name.
pub const ALL: &[(&str, fn())] = &[
    ("much to apply", much_to_apply),
    ("silence", silence),
    ("standstill", standstill),
    ("grant behind a revocation", grant_behind_a_revocation),
    ("renewal of an expired lease", renewal_of_an_expired_lease),
    ("renewal at a deposed primary", renewal_at_a_deposed_primary),
    ("renewal at a new primary", renewal_at_a_new_primary),
    ("leases while corrupt", leases_while_corrupt),
    ("quota", quota),
];

/// A pair that is mirrored, `a` primary, with clients that ask for nothing by themselves.
#[must_use]
pub fn pair(plan: Plan) -> World {
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

/// Without a witness and by the policy `stop` no node is ever taken for lost.
#[must_use]
pub fn patient() -> Plan {
    Plan {
        arbiter: Arbiter::None(LonePolicy::Stop),
        ..Plan::calm()
    }
}

/// Clients come to rest.
pub fn rest(world: &mut World) {
    world.clients.stopped = true;
    world.run_until(ms(10_000), "clients rest", |world| world.clients.are_idle());
}

/// Asks and waits for the end of it.
pub fn ask(world: &mut World, ask: Ask) {
    world.ask(0, ask);
    world.run_until(ms(10_000), "an answer", |world| world.clients.are_idle());
}

/// The TTL of a lease in the state of a node.
///
/// # Panics
/// When it is down.
#[must_use]
pub fn ttl_at(world: &World, n: usize, lease: LeaseId) -> Option<i64> {
    let process = world.machines[n].process.as_ref();
    process.expect("it is up").node.store().lease_ttl(lease)
}

/// How long the lease lives from now on.
pub fn life_of(world: &mut World, lease: LeaseId, most: Duration) -> Duration {
    let from = world.now;
    world.run_until(most, "the lease ends", |world| {
        ttl_at(world, 0, lease).is_none()
    });
    world.now - from
}

/// What has to be applied first keeps no heartbeat back: nobody takes a primary that reads a long
/// log for dead.
fn much_to_apply() {
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
    assert_eq!(
        world.config().id(),
        before,
        "it stays primary: {}",
        world.story
    );
    let applied = world.machines[0].process.as_ref().map(|p| p.applied().0);
    assert!(applied > Some(500), "much was to be applied: {applied:?}");
}

/// A silence of the peer, in which no renewal can be answered, is given to leases.
fn silence() {
    let mut world = pair(patient());
    ask(&mut world, Ask::Grant(1));
    world.network.cut(0, 1);
    world.run_for(ms(10_000));
    world.open_links();
    let life = ms(10_000) + life_of(&mut world, 1, ms(60_000));
    assert!(
        (ms(13_000)..ms(16_000)).contains(&life),
        "life: 4 s and a silence of 10 s, it lives for {life:?}"
    );
}

/// A standstill of the primary is given to leases, once.
fn standstill() {
    let mut world = pair(patient());
    ask(&mut world, Ask::Grant(1));
    world.freeze(0, ms(10_000));
    let life = life_of(&mut world, 1, ms(60_000));
    assert!(
        (ms(13_500)..ms(15_500)).contains(&life),
        "life: 4 s and a standstill of 10 s, it lives for {life:?}"
    );
}

/// A client ends a lease in its last moment and another one makes it anew: its time is not that of
/// the old one.
fn grant_behind_a_revocation() {
    let mut world = pair(patient());
    ask(&mut world, Ask::Grant(1));
    world.run_until(ms(60_000), "its last moment", |world| {
        let process = world.machines[0].process.as_ref().expect("it is up");
        let clock = world.machines[0].clock(world.now);
        let left = process.node.time_to_live(clock, 1);
        left.is_none_or(|(left, _)| left < ms(30))
    });
    // It is in the log and does not get on: its time ends meanwhile.
    world.machines[1].is_slow = true;
    world.ask(0, Ask::Revoke(1));
    world.run_for(ms(1));
    world.ask(1, Ask::Grant(1));
    world.run_for(ms(60));
    world.make_fast(1);
    world.run_until(ms(10_000), "answers", |world| world.clients.are_idle());
    world.run_for(ms(1_000));
    assert!(
        ttl_at(&world, 0, 1).is_some(),
        "life: the new lease is ended"
    );
}

/// A lease whose end is on its way is not renewed.
fn renewal_of_an_expired_lease() {
    let mut world = pair(Plan::calm());
    ask(&mut world, Ask::Grant(1));
    world.run_for(ms(3_900));
    world.machines[1].is_slow = true;
    world.run_for(ms(150));
    world.ask(0, Ask::Renew(1));
    world.run_for(ms(50));
    world.make_fast(1);
    world.run_for(ms(2_000));
}

/// Who was deposed and does not know it answers no renewal.
fn renewal_at_a_deposed_primary() {
    let mut world = pair(Plan::calm());
    ask(&mut world, Ask::Grant(1));
    world.network.cut(0, 1);
    world.cut_witness(0);
    world.run_until(ms(10_000), "the other takes over", |world| {
        world.primary() == Some(1)
            || world.machines[1]
                .process
                .as_ref()
                .is_some_and(|p| p.node.is_active())
    });
    for _ in 0..12 {
        world.run_for(ms(300));
        world.clients.direct(0, 0);
        world.ask(0, Ask::Renew(1));
        world.run_until(ms(10_000), "an answer", |world| world.clients.are_idle());
    }
    world.run_for(ms(10_000));
}

/// A renewal that reaches a node before what makes it primary is durable is not answered as of a
/// lease that is gone.
fn renewal_at_a_new_primary() {
    let mut world = pair(Plan::calm());
    // So long that the witness knows both, and lets the other take over at once.
    world.run_for(ms(15_000));
    ask(&mut world, Ask::Grant(1));
    // The other node hears that it is final, and has applied it.
    world.run_for(ms(1_000));
    world.kill(0);
    world.run_until(ms(10_000), "the other takes over", |world| {
        world.primary() == Some(1)
    });
    world.machines[1].is_slow = true;
    world.clients.direct(0, 1);
    world.ask(0, Ask::Renew(1));
    world.run_for(ms(50));
    world.make_fast(1);
    world.run_until(ms(10_000), "an answer", |world| world.clients.are_idle());
}

/// A lease whose time is over while the store is corrupt ends once that is cleared.
fn leases_while_corrupt() {
    let mut world = pair(Plan::calm());
    let alarm = Alarm::Corrupt;
    ask(&mut world, Ask::Grant(1));
    world.run_for(ms(3_985));
    // Its end is on its way when the alarm is raised.
    world.machines[1].is_slow = true;
    world.ask(0, Ask::Alarm { alarm, raise: true });
    world.run_for(ms(40));
    world.make_fast(1);
    world.run_for(ms(3_000));
    let raise = false;
    ask(&mut world, Ask::Alarm { alarm, raise });
    world.run_for(ms(2_000));
    assert_eq!(ttl_at(&world, 0, 1), None, "life: it never ends");
}

/// A state that reaches its quota refuses what needs space, and both nodes know why.
fn quota() {
    let mut world = pair(Plan {
        quota_bytes: 20_000,
        ..Plan::calm()
    });
    let is_raised = |world: &World, n: usize| {
        let process = world.machines[n].process.as_ref().expect("it is up");
        process.node.store().has_alarm(AlarmKind::NoSpace)
    };
    for i in 0..400 {
        let (key, value, lease) = (0, 1_000_000 + i, 0);
        ask(&mut world, Ask::Put(Put { key, value, lease }));
    }
    world.run_for(ms(1_000));
    let bytes = world.machines[0].process.as_ref().expect("it is up");
    let bytes = bytes.node.state_bytes().file_bytes;
    assert!(bytes < 30_000, "quota: of 20000 bytes, there are {bytes}");
    for n in 0..2 {
        assert!(is_raised(&world, n), "alarm: refused, and none is raised");
    }
}

//! What kine2 aims at, as ratios to what it is compared with.

use crate::plan::Load;
use crate::servers::Kind;

/// What it aims at with a load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Aim {
    /// Processor time per operation, of all processes together, at most.
    pub(crate) cpu: f64,
    /// What would be very good.
    pub(crate) cpu_stretch: f64,
    /// Operations per second with 16 clients or more, at least.
    pub(crate) rate: f64,
}

/// What `kind` aims at with `load`, if anything.
pub(crate) const fn aim(kind: Kind, load: Load) -> Option<Aim> {
    let (cpu, cpu_stretch, rate) = match (kind, load) {
        (Kind::Kine2, Load::Update) => (0.45, 0.30, 1.6),
        (Kind::Kine2, Load::Create) => (0.42, 0.27, 1.6),
        (Kind::Kine2, Load::Get) => (0.35, 0.22, 1.8),
        (Kind::Kine2, Load::List) => (0.32, 0.20, 2.0),
        (Kind::Kine2, Load::Mixed) => (0.38, 0.25, 1.8),
        (Kind::Kine2, Load::Watch) => (0.35, 0.22, 1.8),
        (Kind::Pair | Kind::PairSecond, Load::Update) => (0.30, 0.15, 2.5),
        (Kind::Pair | Kind::PairSecond, Load::Create) => (0.30, 0.15, 2.4),
        (Kind::Pair | Kind::PairSecond, Load::Get) => (0.30, 0.15, 1.8),
        (Kind::Pair | Kind::PairSecond, Load::List) => (0.32, 0.15, 2.0),
        _ => return None,
    };
    Some(Aim {
        cpu,
        cpu_stretch,
        rate,
    })
}

/// The median of the time an update of one client takes, at most.
pub(crate) const fn update_p50_aim(kind: Kind) -> Option<f64> {
    match kind {
        Kind::Kine2 => Some(0.65),
        Kind::Pair | Kind::PairSecond => Some(0.5),
        _ => None,
    }
}

//! What a node keeps in a part's log beside the entries, as bytes (`repl section 3`).
//!
//! The layout is written down in `docs/wal-format.md`.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes, BytesMut};
use kine2_wal::Origin;

use crate::config::Config;
use crate::epoch::Epoch;
use crate::fields::{
    Reader, RecordError, put_address, put_count, put_marks, put_node, put_option, put_replica,
    put_text, value_of,
};
use crate::forms::Reason;
use crate::hard_state::{DataState, HardState, PendingAdd};
use crate::ids::{ClusterId, Incarnation, PartName, Replica, WitnessId};
use crate::policy::{Arbiter, LonePolicy, Policies};

/// Version of the layout of a record that is written.
const VERSION: u8 = 4;
/// Version of the layout of a configuration by itself: that in which it changed last, so that
/// programs of neighbouring versions understand each other.
const CONFIG_VERSION: u8 = 3;
/// The last version that knew no floors; it is read, too.
const VERSION_WITHOUT_FLOORS: u8 = 3;
/// The version before, which knew no origins, twins and suspects; it is read, too.
const VERSION_WITHOUT_ORIGINS: u8 = 2;

/// The record a node keeps in the log of one part: it is replaced as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durable {
    /// How often the node started.
    pub boot: u64,
    /// Incarnation of the part's storage (`repl K6`).
    pub storage: Incarnation,
    /// Whether the part's data can be used.
    pub data: DataState,
    /// The unit's hard state; in the lead part only.
    pub hard: Option<HardState>,
}

impl Durable {
    /// The bytes.
    ///
    /// # Panics
    /// If a name or address is longer than [`NAME_BYTES_MAX`]: they are refused where they come in.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(512);
        out.put_u8(VERSION);
        out.put_u64_le(self.boot);
        out.put_u128_le(self.storage.0);
        out.put_u8(match self.data {
            DataState::Complete => 0,
            DataState::Inconsistent => 1,
            DataState::Failed => 2,
        });
        put_option(&mut out, self.hard.as_ref(), put_hard);
        out.freeze()
    }

    /// Reads the bytes.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = versioned(bytes, VERSION)?;
        let durable = Self {
            boot: reader.u64("boot")?,
            storage: Incarnation(reader.u128("storage")?),
            data: match reader.u8("data")? {
                0 => DataState::Complete,
                1 => DataState::Inconsistent,
                2 => DataState::Failed,
                value => return Err(value_of("data", value)),
            },
            hard: reader.option("hard state", Reader::hard)?,
        };
        match reader.bytes.len() {
            0 => Ok(durable),
            rest => Err(RecordError::Long(rest)),
        }
    }
}

impl Config {
    /// The bytes, as other nodes and the witness get them: the version of the record's layout, and
    /// the configuration as the record has it.
    ///
    /// # Panics
    /// As [`Durable::encode`].
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(256);
        out.put_u8(CONFIG_VERSION);
        put_config(&mut out, self);
        out.freeze()
    }

    /// Reads the bytes.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = versioned(bytes, CONFIG_VERSION)?;
        let config = reader.config()?;
        match reader.bytes.len() {
            0 => Ok(config),
            rest => Err(RecordError::Long(rest)),
        }
    }
}

/// What follows the version, which must be one that is read.
fn versioned(bytes: &[u8], most: u8) -> Result<Reader<'_>, RecordError> {
    let mut reader = Reader {
        bytes,
        version: most,
    };
    reader.version = reader.u8("version")?;
    if !(VERSION_WITHOUT_ORIGINS..=most).contains(&reader.version) {
        return Err(RecordError::Version {
            found: reader.version.into(),
            least: VERSION_WITHOUT_ORIGINS.into(),
            most: most.into(),
        });
    }
    Ok(reader)
}

fn put_hard(out: &mut BytesMut, hard: &HardState) {
    put_config(out, &hard.config);
    out.put_u32_le(hard.run);
    put_option(out, hard.pend_add.as_ref(), |out, pending| {
        put_text(out, pending.part.as_str());
        put_replica(out, &pending.replica);
    });
    put_option(out, hard.prop.as_ref(), put_config);
    out.put_u8(u8::from(hard.stopped));
    out.put_u8(u8::from(hard.twin));
    put_count(out, hard.suspect.len());
    for part in &hard.suspect {
        put_text(out, part.as_str());
    }
    put_marks(out, &hard.known);
    put_count(out, hard.reverted.len());
    for part in &hard.reverted {
        put_text(out, part.as_str());
    }
}

fn put_config(out: &mut BytesMut, config: &Config) {
    out.put_u128_le(config.cluster.0);
    put_text(out, config.unit.as_str());
    out.put_u64_le(config.epoch.0);
    out.put_u64_le(config.uid);
    out.put_u32_le(config.origin.0);
    put_node(out, &config.primary);
    put_text(out, config.lead.as_str());
    put_count(out, config.in_sync.len());
    for (part, replicas) in &config.in_sync {
        put_text(out, part.as_str());
        put_count(out, replicas.len());
        for replica in replicas {
            put_replica(out, replica);
        }
    }
    put_count(out, config.members.len());
    for member in &config.members {
        put_node(out, member);
    }
    match &config.arbiter {
        Arbiter::Witness { id, address } => {
            out.put_u8(0);
            out.put_u128_le(id.0);
            put_text(out, address);
        }
        Arbiter::None(LonePolicy::Stop) => out.put_u8(1),
        Arbiter::None(LonePolicy::PreferPrimary) => out.put_u8(2),
        Arbiter::None(LonePolicy::Ping(gateways)) => {
            out.put_u8(3);
            put_count(out, gateways.len());
            for gateway in gateways {
                put_address(out, *gateway);
            }
        }
    }
    let Policies {
        swap_back,
        boot_alone,
        preferred,
        ping_auto_discard,
    } = &config.policies;
    let flags = [*swap_back, *boot_alone, *ping_auto_discard];
    let bits = flags.iter().rev();
    out.put_u8(bits.fold(0, |bits, flag| bits << 1 | u8::from(*flag)));
    put_option(out, preferred.as_ref(), |out, name| {
        put_text(out, name.as_str());
    });
    out.put_u8(reason_number(config.reason));
}

const fn reason_number(reason: Reason) -> u8 {
    match reason {
        Reason::Init => 0,
        Reason::Remove => 1,
        Reason::Drop => 2,
        Reason::Takeover => 3,
        Reason::Add => 4,
        Reason::Swap => 5,
        Reason::Abdicate => 6,
        Reason::Parts => 7,
        Reason::Policy => 8,
        Reason::Move => 9,
        Reason::Force => 10,
        Reason::Ping => 11,
    }
}

/// In the order of their numbers.
const REASONS: [Reason; 12] = [
    Reason::Init,
    Reason::Remove,
    Reason::Drop,
    Reason::Takeover,
    Reason::Add,
    Reason::Swap,
    Reason::Abdicate,
    Reason::Parts,
    Reason::Policy,
    Reason::Move,
    Reason::Force,
    Reason::Ping,
];

impl Reader<'_> {
    fn hard(&mut self) -> Result<HardState, RecordError> {
        Ok(HardState {
            config: self.config()?,
            run: self.u32("run")?,
            pend_add: self.option("add in doubt", |reader| {
                Ok(PendingAdd {
                    part: reader.text("part")?.into(),
                    replica: reader.replica()?,
                })
            })?,
            prop: self.option("proposed arbiter", Self::config)?,
            stopped: self.flag("stopped")?,
            twin: self.knows_origins() && self.flag("twin")?,
            suspect: match self.knows_origins() {
                true => self.set("suspects", |reader| Ok(reader.text("suspect")?.into()))?,
                false => BTreeSet::new(),
            },
            known: match self.knows_floors() {
                true => self.marks("parts known")?,
                false => BTreeMap::new(),
            },
            reverted: match self.knows_floors() {
                true => self.set("parts set back", |reader| Ok(reader.text("part")?.into()))?,
                false => BTreeSet::new(),
            },
        })
    }

    fn knows_floors(&self) -> bool {
        self.version > VERSION_WITHOUT_FLOORS
    }

    fn knows_origins(&self) -> bool {
        self.version > VERSION_WITHOUT_ORIGINS
    }

    fn config(&mut self) -> Result<Config, RecordError> {
        let config = Config {
            cluster: ClusterId(self.u128("cluster")?),
            unit: self.text("unit")?.into(),
            epoch: Epoch(self.u64("epoch")?),
            uid: self.u64("uid")?,
            origin: match self.knows_origins() {
                true => Origin(self.u32("origin")?),
                false => Origin::NONE,
            },
            primary: self.node()?,
            lead: self.text("lead")?.into(),
            in_sync: self.in_sync()?,
            members: self.set("members", Self::node)?,
            arbiter: self.arbiter()?,
            policies: self.policies()?,
            reason: {
                let number = self.u8("reason")?;
                let reason = REASONS.get(usize::from(number)).copied();
                reason.ok_or_else(|| value_of("reason", number))?
            },
        };
        config.check_shape()?;
        Ok(config)
    }

    fn in_sync(&mut self) -> Result<BTreeMap<PartName, BTreeSet<Replica>>, RecordError> {
        let mut parts = BTreeMap::new();
        for _ in 0..self.u8("parts")? {
            let part = self.text("part")?.into();
            let replicas = self.set("replicas", Self::replica)?;
            if parts.insert(part, replicas).is_some() {
                return Err(RecordError::Twice("parts"));
            }
        }
        Ok(parts)
    }

    fn arbiter(&mut self) -> Result<Arbiter, RecordError> {
        Ok(match self.u8("arbiter")? {
            0 => Arbiter::Witness {
                id: WitnessId(self.u128("witness")?),
                address: self.text("address")?.to_owned(),
            },
            1 => Arbiter::None(LonePolicy::Stop),
            2 => Arbiter::None(LonePolicy::PreferPrimary),
            3 => Arbiter::None(LonePolicy::Ping(
                (0..self.u8("gateways")?)
                    .map(|_| self.address())
                    .collect::<Result<_, _>>()?,
            )),
            value => return Err(value_of("arbiter", value)),
        })
    }

    fn policies(&mut self) -> Result<Policies, RecordError> {
        let flags = self.u8("policies")?;
        if flags > 7 {
            return Err(value_of("policies", flags));
        }
        Ok(Policies {
            swap_back: flags & 1 != 0,
            boot_alone: flags & 2 != 0,
            ping_auto_discard: flags & 4 != 0,
            preferred: self.option("preferred", |reader| Ok(reader.text("preferred")?.into()))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use kine2_wal::{LogIndex, Term};
    use proptest::prelude::*;

    use super::*;
    use crate::floors::Mark;
    use crate::ids::NodeRef;

    fn node(name: &str, incarnation: u128) -> NodeRef {
        NodeRef::new(name, incarnation)
    }

    fn config(mirror: bool, witness: bool, reason: usize) -> Config {
        let replica = |name, incarnation| Replica {
            node: node(name, incarnation),
            storage: Incarnation(incarnation + 1),
        };
        let mut set = BTreeSet::from([replica("a", 1)]);
        if mirror {
            set.insert(replica("b", 10));
        }
        Config {
            cluster: ClusterId(7),
            unit: "main".into(),
            epoch: Epoch::new(2, 9),
            uid: 77,
            origin: Origin(0xabcd),
            primary: node("a", 1),
            lead: "store".into(),
            in_sync: BTreeMap::from([("store".into(), set.clone()), ("till".into(), set)]),
            members: BTreeSet::from([node("a", 1), node("b", 10)]),
            arbiter: if witness {
                Arbiter::Witness {
                    id: WitnessId(5),
                    address: "192.0.2.1:2390".into(),
                }
            } else if mirror {
                Arbiter::None(LonePolicy::PreferPrimary)
            } else {
                let v6 = [0xfe80, 0, 0, 0, 0, 0, 0, 1];
                Arbiter::None(LonePolicy::Ping(vec![[192, 0, 2, 1].into(), v6.into()]))
            },
            policies: Policies {
                ping_auto_discard: !witness,
                preferred: witness.then(|| "b".into()),
                ..Policies::default()
            },
            reason: REASONS[reason],
        }
    }

    fn durable() -> impl Strategy<Value = Durable> {
        let config = (any::<bool>(), any::<bool>(), 0..REASONS.len())
            .prop_map(|(mirror, witness, reason)| config(mirror, witness, reason));
        let prop = prop::option::of(config.clone());
        let hard = (config, any::<u32>(), any::<bool>(), prop, any::<bool>());
        let hard = hard.prop_map(|(config, run, pends, prop, stopped)| HardState {
            pend_add: pends.then(|| PendingAdd {
                part: "till".into(),
                replica: config.replicas(&config.lead).next().unwrap().clone(),
            }),
            config,
            run,
            prop,
            stopped,
            twin: !stopped,
            suspect: match stopped {
                true => BTreeSet::from(["till".into()]),
                false => BTreeSet::new(),
            },
            known: match stopped {
                true => BTreeMap::new(),
                false => {
                    let index = LogIndex(run.into());
                    let term = Term::new(run.into(), run);
                    BTreeMap::from([("till".into(), Mark { index, term })])
                }
            },
            reverted: match stopped {
                true => BTreeSet::new(),
                false => BTreeSet::from(["store".into(), "till".into()]),
            },
        });
        (
            any::<u64>(),
            any::<u128>(),
            0..3usize,
            prop::option::of(hard),
        )
            .prop_map(|(boot, storage, data, hard)| Durable {
                boot,
                storage: Incarnation(storage),
                data: [
                    DataState::Complete,
                    DataState::Inconsistent,
                    DataState::Failed,
                ][data],
                hard,
            })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(durable in durable(), cut in any::<prop::sample::Index>()) {
            let bytes = durable.encode();
            prop_assert_eq!(Durable::decode(&bytes), Ok(durable));
            let part = &bytes[..cut.index(bytes.len())];
            prop_assert!(Durable::decode(part).is_err(), "a part is not the whole");
            let more = [&bytes[..], &[0]].concat();
            prop_assert_eq!(Durable::decode(&more), Err(RecordError::Long(1)));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Durable::decode(&bytes);
        }

        #[test]
        fn a_flipped_byte_is_another_record_or_none(
            durable in durable(), at in any::<prop::sample::Index>(), flip in 1..=255u8,
        ) {
            let mut bytes = durable.encode().to_vec();
            // The first is the version: under an older one the same record may mean the same.
            let at = 1 + at.index(bytes.len() - 1);
            bytes[at] ^= flip;
            prop_assert_ne!(Durable::decode(&bytes), Ok(durable));
        }
    }

    /// A record of the version before is what is written now without its last two fields.
    #[test]
    fn a_record_without_floors_is_read() {
        let mut durable = Durable {
            boot: 3,
            storage: Incarnation(4),
            data: DataState::Complete,
            hard: Some(HardState {
                run: 7,
                suspect: BTreeSet::from(["till".into()]),
                ..HardState::adopting(config(true, true, 2))
            }),
        };
        let bytes = durable.encode();
        let mut old = bytes[..bytes.len() - 2].to_vec();
        old[0] = VERSION_WITHOUT_FLOORS;
        assert_eq!(Durable::decode(&old), Ok(durable.clone()));
        old[0] = VERSION;
        assert_eq!(
            Durable::decode(&old),
            Err(RecordError::Short("parts known"))
        );
        durable.hard = None;
        let mut old = durable.encode().to_vec();
        old[0] = VERSION_WITHOUT_FLOORS;
        assert_eq!(Durable::decode(&old), Ok(durable));
    }

    #[test]
    fn reasons_are_numbered_in_order() {
        for (number, reason) in REASONS.into_iter().enumerate() {
            assert_eq!(usize::from(reason_number(reason)), number);
        }
    }
}

//! Calls of a witness and its words.

use std::net::IpAddr;

use bytes::Bytes;
use kine2_proto::kine2 as proto;
use kine2_proto::kine2::{arbiter, cas, witness_call, witness_word};
use kine2_replication::{
    Arbiter, Ask, Cas, Config, ConfigId, Epoch, Floors, Force, ForcedPart, Form, Holdings,
    Incarnation, LogIndex, LonePolicy, Mark, Origin, PartHoldings, Policies, Refusal, Replica,
    Report, Tell, Term, ToldFloors, WitnessCall, WitnessId, WitnessLife, WitnessWord,
};

use super::WireError;
use super::ids::{
    identity, identity_to_wire, key, needed, node_from_wire, node_to_wire, part, text,
};

/// A call on the wire.
#[must_use]
pub fn call_to_wire(call: &WitnessCall) -> proto::WitnessCall {
    use witness_call::Ask as Wire;
    proto::WitnessCall {
        cluster: identity_to_wire(call.key.cluster.0),
        unit: call.key.unit.as_str().to_owned(),
        witness: identity_to_wire(call.witness.0),
        caller: Some(node_to_wire(&call.caller)),
        number: call.number,
        ask: Some(match &call.ask {
            Ask::Get => Wire::Get(proto::Nothing {}),
            Ask::Cas(cas) => Wire::Cas(cas_to_wire(cas)),
            Ask::Init(config) => Wire::Init(config.encode()),
            Ask::Force(force) => Wire::Force(force_to_wire(force)),
            Ask::Report(report) => Wire::Report(proto::Report {
                epoch: report.epoch.0,
                healthy: report.healthy,
                held: report.held.as_ref().map(held_to_wire),
            }),
            Ask::Suspect(epoch) => Wire::Suspect(epoch.0),
            Ask::ProbeAck { nonce, healthy } => Wire::ProbeAck(proto::ProbeAck {
                nonce: *nonce,
                healthy: *healthy,
            }),
        }),
    }
}

/// A call from the wire.
///
/// # Errors
/// If it is malformed.
pub fn call_from_wire(call: proto::WitnessCall) -> Result<WitnessCall, WireError> {
    use witness_call::Ask as Wire;
    let config = |bytes: Bytes| Config::decode(&bytes).map(Box::new);
    Ok(WitnessCall {
        key: key(&call.cluster, &call.unit)?,
        witness: WitnessId(identity(&call.witness, "the witness")?),
        caller: node_from_wire(call.caller.as_ref())?,
        number: call.number,
        ask: match needed(call.ask, "what is asked")? {
            Wire::Get(_) => Ask::Get,
            Wire::Cas(wire) => Ask::Cas(Box::new(cas_from_wire(wire)?)),
            Wire::Init(bytes) => Ask::Init(config(bytes)?),
            Wire::Force(wire) => Ask::Force(Box::new(force_from_wire(&wire)?)),
            Wire::Report(report) => Ask::Report(Report {
                epoch: Epoch(report.epoch),
                healthy: report.healthy,
                held: report.held.map(held).transpose()?,
            }),
            Wire::Suspect(epoch) => Ask::Suspect(Epoch(epoch)),
            Wire::ProbeAck(ack) => Ask::ProbeAck {
                nonce: ack.nonce,
                healthy: ack.healthy,
            },
        },
    })
}

fn force_to_wire(force: &Force) -> proto::Force {
    let mut wire = proto::Force {
        config: force.config.encode(),
        ..proto::Force::default()
    };
    if let Some(ForcedPart { part, expected }) = &force.part {
        wire.part = Some(part.as_str().to_owned());
        wire.expected_epoch = expected.epoch.0;
        wire.expected_uid = expected.uid;
        wire.expected_origin = expected.origin.0;
    }
    wire
}

fn force_from_wire(wire: &proto::Force) -> Result<Force, WireError> {
    let forced = |name: &String| {
        Ok::<_, WireError>(ForcedPart {
            part: part(name)?,
            expected: ConfigId {
                epoch: Epoch(wire.expected_epoch),
                uid: wire.expected_uid,
                origin: Origin(wire.expected_origin),
            },
        })
    };
    Ok(Force {
        config: Config::decode(&wire.config)?,
        part: wire.part.as_ref().map(forced).transpose()?,
    })
}

fn cas_to_wire(cas: &Cas) -> proto::Cas {
    proto::Cas {
        form: Some(form_to_wire(&cas.form)),
        expected_epoch: cas.expected.epoch.0,
        expected_uid: cas.expected.uid,
        expected_origin: cas.expected.origin.0,
        new: cas.new.encode(),
        held: cas.held.as_ref().map(held_to_wire),
    }
}

fn cas_from_wire(wire: proto::Cas) -> Result<Cas, WireError> {
    Ok(Cas {
        form: form(needed(wire.form, "the form")?)?,
        expected: ConfigId {
            epoch: Epoch(wire.expected_epoch),
            uid: wire.expected_uid,
            origin: Origin(wire.expected_origin),
        },
        new: Config::decode(&wire.new)?,
        held: wire.held.map(held).transpose()?,
    })
}

fn held_to_wire(held: &Holdings) -> proto::Holdings {
    let parts = held.parts.iter().map(|(part, held)| proto::PartHoldings {
        part: part.as_str().to_owned(),
        end: Some(mark_to_wire(held.end)),
        commit: Some(mark_to_wire(held.commit)),
    });
    proto::Holdings {
        boot: held.boot,
        epoch: held.config.epoch.0,
        uid: held.config.uid,
        origin: held.config.origin.0,
        parts: parts.collect(),
    }
}

fn held(wire: proto::Holdings) -> Result<Holdings, WireError> {
    let one = |held: proto::PartHoldings| {
        let end = mark(held.end)?;
        let commit = mark(held.commit)?;
        Ok::<_, WireError>((part(&held.part)?, PartHoldings { end, commit }))
    };
    Ok(Holdings {
        boot: wire.boot,
        config: ConfigId {
            epoch: Epoch(wire.epoch),
            uid: wire.uid,
            origin: Origin(wire.origin),
        },
        parts: wire.parts.into_iter().map(one).collect::<Result<_, _>>()?,
    })
}

fn floors_to_wire(told: &ToldFloors) -> proto::Floors {
    let parts = told.floors.parts.iter().map(|(part, at)| proto::PartFloor {
        part: part.as_str().to_owned(),
        mark: Some(mark_to_wire(*at)),
    });
    let boots = told.floors.boots.iter().map(|(node, boot)| proto::Boot {
        node: Some(node_to_wire(node)),
        boot: *boot,
    });
    proto::Floors {
        epoch: told.config.epoch.0,
        uid: told.config.uid,
        origin: told.config.origin.0,
        parts: parts.collect(),
        boots: boots.collect(),
    }
}

fn floors(wire: proto::Floors) -> Result<ToldFloors, WireError> {
    let parts = wire.parts.into_iter().map(|floor| {
        let at = mark(floor.mark)?;
        Ok::<_, WireError>((part(&floor.part)?, at))
    });
    let boots = wire
        .boots
        .into_iter()
        .map(|boot| Ok::<_, WireError>((node_from_wire(boot.node.as_ref())?, boot.boot)));
    Ok(ToldFloors {
        config: ConfigId {
            epoch: Epoch(wire.epoch),
            uid: wire.uid,
            origin: Origin(wire.origin),
        },
        floors: Floors {
            parts: parts.collect::<Result<_, _>>()?,
            boots: boots.collect::<Result<_, _>>()?,
        },
    })
}

fn mark_to_wire(mark: Mark) -> proto::Mark {
    proto::Mark {
        index: mark.index.0,
        epoch: mark.term.epoch,
        run: mark.term.run,
        origin: mark.term.origin.0,
    }
}

fn mark(wire: Option<proto::Mark>) -> Result<Mark, WireError> {
    let wire = needed(wire, "an entry's name")?;
    Ok(Mark {
        index: LogIndex(wire.index),
        term: Term {
            epoch: wire.epoch,
            run: wire.run,
            origin: Origin(wire.origin),
        },
    })
}

fn form_to_wire(form: &Form) -> cas::Form {
    use cas::Form as Wire;
    let nothing = proto::Nothing {};
    match form {
        Form::Remove => Wire::Remove(nothing),
        Form::Drop(part) => Wire::Drop(part.as_str().to_owned()),
        Form::Takeover => Wire::Takeover(nothing),
        Form::Add { part, replica } => Wire::Add(proto::Add {
            part: part.as_str().to_owned(),
            node: Some(node_to_wire(&replica.node)),
            storage: identity_to_wire(replica.storage.0),
        }),
        Form::Swap => Wire::Swap(nothing),
        Form::Abdicate => Wire::Abdicate(nothing),
        Form::NewPart { part, storage } => Wire::NewPart(proto::NewPart {
            part: part.as_str().to_owned(),
            storage: identity_to_wire(storage.0),
        }),
        Form::DeletePart(part) => Wire::DeletePart(part.as_str().to_owned()),
        Form::Policy(policies) => Wire::Policy(proto::Policies {
            swap_back: policies.swap_back,
            boot_alone: policies.boot_alone,
            preferred: policies
                .preferred
                .as_ref()
                .map(|name| name.as_str().to_owned()),
            ping_auto_discard: policies.ping_auto_discard,
        }),
        Form::Move {
            arbiter,
            generation,
        } => Wire::Move(proto::Move {
            arbiter: Some(arbiter_to_wire(arbiter)),
            generation: *generation,
        }),
    }
}

fn form(wire: cas::Form) -> Result<Form, WireError> {
    use cas::Form as Wire;
    Ok(match wire {
        Wire::Remove(_) => Form::Remove,
        Wire::Drop(name) => Form::Drop(part(&name)?),
        Wire::Takeover(_) => Form::Takeover,
        Wire::Add(add) => Form::Add {
            part: part(&add.part)?,
            replica: Replica {
                node: node_from_wire(add.node.as_ref())?,
                storage: Incarnation(identity(&add.storage, "a part's storage")?),
            },
        },
        Wire::Swap(_) => Form::Swap,
        Wire::Abdicate(_) => Form::Abdicate,
        Wire::NewPart(new) => Form::NewPart {
            part: part(&new.part)?,
            storage: Incarnation(identity(&new.storage, "a part's storage")?),
        },
        Wire::DeletePart(name) => Form::DeletePart(part(&name)?),
        Wire::Policy(policies) => Form::Policy(Policies {
            swap_back: policies.swap_back,
            boot_alone: policies.boot_alone,
            preferred: match &policies.preferred {
                Some(name) => Some(text(name, "the preferred node")?.into()),
                None => None,
            },
            ping_auto_discard: policies.ping_auto_discard,
        }),
        Wire::Move(wire) => Form::Move {
            arbiter: arbiter(wire.arbiter)?,
            generation: wire.generation,
        },
    })
}

fn arbiter_to_wire(arbiter: &Arbiter) -> proto::Arbiter {
    use arbiter::Kind;
    let nothing = proto::Nothing {};
    proto::Arbiter {
        kind: Some(match arbiter {
            Arbiter::Witness { id, address } => Kind::Witness(proto::Witness {
                id: identity_to_wire(id.0),
                address: address.clone(),
            }),
            Arbiter::None(LonePolicy::Stop) => Kind::Stop(nothing),
            Arbiter::None(LonePolicy::PreferPrimary) => Kind::PreferPrimary(nothing),
            Arbiter::None(LonePolicy::Ping(gateways)) => Kind::Ping(proto::Ping {
                gateways: gateways.iter().map(address_to_wire).collect(),
            }),
        }),
    }
}

fn arbiter(wire: Option<proto::Arbiter>) -> Result<Arbiter, WireError> {
    use arbiter::Kind;
    let kind = wire.and_then(|wire| wire.kind);
    Ok(match needed(kind, "the arbiter")? {
        Kind::Witness(witness) => Arbiter::Witness {
            id: WitnessId(identity(&witness.id, "the witness")?),
            address: text(&witness.address, "the witness's address")?.to_owned(),
        },
        Kind::Stop(_) => Arbiter::None(LonePolicy::Stop),
        Kind::PreferPrimary(_) => Arbiter::None(LonePolicy::PreferPrimary),
        Kind::Ping(ping) => {
            let gateways = ping.gateways.iter().map(|octets| address(octets));
            Arbiter::None(LonePolicy::Ping(gateways.collect::<Result<_, _>>()?))
        }
    })
}

fn address_to_wire(address: &IpAddr) -> Bytes {
    match address {
        IpAddr::V4(address) => Bytes::copy_from_slice(&address.octets()),
        IpAddr::V6(address) => Bytes::copy_from_slice(&address.octets()),
    }
}

fn address(octets: &[u8]) -> Result<IpAddr, WireError> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    let v6 = <[u8; 16]>::try_from(octets).map(IpAddr::from);
    v4.or(v6)
        .map_err(|_| WireError::Missing("a gateway's address"))
}

/// A word on the wire.
#[must_use]
pub fn word_to_wire(word: &WitnessWord) -> proto::WitnessWord {
    use witness_word::Tell as Wire;
    proto::WitnessWord {
        cluster: identity_to_wire(word.key.cluster.0),
        unit: word.key.unit.as_str().to_owned(),
        witness: identity_to_wire(word.witness.0),
        life: word.life.0,
        answers: word.answers,
        floors: word.floors.as_deref().map(floors_to_wire),
        tell: Some(match &word.tell {
            Tell::Register(config) => Wire::Register(config.encode()),
            Tell::Moved(config) => Wire::Moved(config.encode()),
            Tell::Refused(refusal) => Wire::Refused(refusal_to_wire(refusal)),
            Tell::Probe { nonce } => Wire::Probe(*nonce),
            Tell::Peer { connected } => Wire::PeerConnected(*connected),
        }),
    }
}

/// A word from the wire.
///
/// # Errors
/// If it is malformed.
pub fn word_from_wire(word: proto::WitnessWord) -> Result<WitnessWord, WireError> {
    use witness_word::Tell as Wire;
    let config = |bytes: Bytes| Config::decode(&bytes).map(Box::new);
    Ok(WitnessWord {
        key: key(&word.cluster, &word.unit)?,
        witness: WitnessId(identity(&word.witness, "the witness")?),
        life: WitnessLife(word.life),
        answers: word.answers,
        floors: word.floors.map(floors).transpose()?.map(Box::new),
        tell: match needed(word.tell, "what the witness says")? {
            Wire::Register(bytes) => Tell::Register(config(bytes)?),
            Wire::Moved(bytes) => Tell::Moved(config(bytes)?),
            Wire::Refused(wire) => Tell::Refused(refusal(wire)?),
            Wire::Probe(nonce) => Tell::Probe { nonce },
            Wire::PeerConnected(connected) => Tell::Peer { connected },
        },
    })
}

/// A form that was refused goes as its words: to the caller it is a record that does not fit.
fn refusal_to_wire(refusal: &Refusal) -> proto::Refusal {
    use proto::RefusalKind as Kind;
    let (kind, text) = match refusal {
        Refusal::UnknownRegister => (Kind::UnknownRegister, String::new()),
        Refusal::OtherWitness => (Kind::OtherWitness, String::new()),
        Refusal::NotTheForm => (Kind::NotTheForm, String::new()),
        Refusal::Form(error) => (Kind::Record, error.to_string()),
        Refusal::Record(what) => (Kind::Record, what.clone()),
        Refusal::PrimaryAlive => (Kind::PrimaryAlive, String::new()),
        Refusal::Probation => (Kind::Probation, String::new()),
        Refusal::Regressed => (Kind::Regressed, String::new()),
        Refusal::Generation => (Kind::Generation, String::new()),
        Refusal::RegistersMax => (Kind::RegistersMax, String::new()),
        Refusal::Reverted => (Kind::Reverted, String::new()),
    };
    proto::Refusal {
        kind: kind.into(),
        text,
    }
}

fn refusal(wire: proto::Refusal) -> Result<Refusal, WireError> {
    use proto::RefusalKind as Kind;
    Ok(match wire.kind() {
        Kind::RefusalUnknown => return Err(WireError::Missing("why the witness refuses")),
        Kind::UnknownRegister => Refusal::UnknownRegister,
        Kind::OtherWitness => Refusal::OtherWitness,
        Kind::NotTheForm => Refusal::NotTheForm,
        Kind::Record => Refusal::Record(wire.text),
        Kind::PrimaryAlive => Refusal::PrimaryAlive,
        Kind::Probation => Refusal::Probation,
        Kind::Regressed => Refusal::Regressed,
        Kind::Generation => Refusal::Generation,
        Kind::RegistersMax => Refusal::RegistersMax,
        Kind::Reverted => Refusal::Reverted,
    })
}

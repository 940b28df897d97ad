//! The records of the state file, as bytes (docs/witness.md, "The state file").

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kine2_replication::{ClusterId, Config, Floors, RecordError as ConfigError, RegisterKey};
use kine2_witness_core::Register;
use rustls::pki_types::CertificateDer;
use thiserror::Error;

const IDENTITY: u8 = 1;
const CLUSTER: u8 = 2;
const REGISTER: u8 = 3;
const REGRESSED: u8 = 1;
const MOVED: u8 = 2;
const FLOORS: u8 = 4;

/// Who the witness is: made with its empty store, and kept with it, so that a store that was wiped
/// is another witness (`repl W1`).
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Its certificate; the id follows from it.
    pub(crate) certificate: CertificateDer<'static>,
    /// The certificate's key, PKCS #8, DER.
    pub(crate) key: Bytes,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}

/// One record. A later one replaces an earlier one of the same [`RecordKey`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// The first record, and only that.
    Identity(Identity),
    /// A cluster that was enrolled, and its authority's certificate.
    Cluster(ClusterId, CertificateDer<'static>),
    /// The content of a register.
    Register(Box<Register>),
}

/// What a record is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RecordKey {
    /// The witness: first in order, as in the file.
    Identity,
    /// A cluster.
    Cluster(ClusterId),
    /// A register.
    Register(RegisterKey),
}

/// Why bytes are no record.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum RecordError {
    #[error("it ends within {0}")]
    Short(&'static str),
    #[error("{0} bytes follow its end")]
    Long(usize),
    #[error("kind {0} is unknown")]
    Kind(u8),
    #[error("flags {0} are unknown")]
    Flags(u8),
    #[error("its configuration: {0}")]
    Config(#[from] ConfigError),
}

impl Record {
    pub(crate) fn key(&self) -> RecordKey {
        match self {
            Self::Identity(_) => RecordKey::Identity,
            Self::Cluster(cluster, _) => RecordKey::Cluster(*cluster),
            Self::Register(register) => RecordKey::Register(register.config.key()),
        }
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        match self {
            Self::Identity(identity) => {
                out.put_u8(IDENTITY);
                put_sized(&mut out, &identity.certificate);
                put_sized(&mut out, &identity.key);
            }
            Self::Cluster(cluster, certificate) => {
                out.put_u8(CLUSTER);
                out.put_u128_le(cluster.0);
                put_sized(&mut out, certificate);
            }
            Self::Register(register) => {
                out.put_u8(REGISTER);
                let regressed = if register.regressed { REGRESSED } else { 0 };
                let moved = register.moved_to.as_ref().map_or(0, |_| MOVED);
                let floors = if register.floors == Floors::default() {
                    0
                } else {
                    FLOORS
                };
                out.put_u8(regressed | moved | floors);
                put_sized(&mut out, &register.config.encode());
                if let Some(config) = &register.moved_to {
                    put_sized(&mut out, &config.encode());
                }
                if floors != 0 {
                    put_sized(&mut out, &register.floors.encode());
                }
            }
        }
        out.freeze()
    }

    pub(crate) fn decode(mut bytes: &[u8]) -> Result<Self, RecordError> {
        let from = &mut bytes;
        let record = match byte(from, "kind")? {
            IDENTITY => Self::Identity(Identity {
                certificate: sized(from, "certificate")?.to_vec().into(),
                key: Bytes::copy_from_slice(sized(from, "key")?),
            }),
            CLUSTER => {
                let cluster = from
                    .try_get_u128_le()
                    .map_err(|_| RecordError::Short("cluster"))?;
                let certificate = sized(from, "certificate")?.to_vec().into();
                Self::Cluster(ClusterId(cluster), certificate)
            }
            REGISTER => {
                let flags = byte(from, "flags")?;
                if flags & !(REGRESSED | MOVED | FLOORS) != 0 {
                    return Err(RecordError::Flags(flags));
                }
                Self::Register(Box::new(Register {
                    config: Config::decode(sized(from, "configuration")?)?,
                    moved_to: match flags & MOVED {
                        0 => None,
                        _ => Some(Config::decode(sized(from, "configuration")?)?),
                    },
                    regressed: flags & REGRESSED != 0,
                    floors: match flags & FLOORS {
                        0 => Floors::default(),
                        _ => Floors::decode(sized(from, "floors")?)?,
                    },
                }))
            }
            kind => return Err(RecordError::Kind(kind)),
        };
        match bytes.len() {
            0 => Ok(record),
            rest => Err(RecordError::Long(rest)),
        }
    }
}

fn put_sized(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32_le(u32::try_from(bytes.len()).expect("certificates and configurations are small"));
    out.put_slice(bytes);
}

fn byte(from: &mut &[u8], what: &'static str) -> Result<u8, RecordError> {
    from.try_get_u8().map_err(|_| RecordError::Short(what))
}

fn sized<'b>(from: &mut &'b [u8], what: &'static str) -> Result<&'b [u8], RecordError> {
    let count = from
        .try_get_u32_le()
        .map_err(|_| RecordError::Short(what))?;
    let count = usize::try_from(count).map_err(|_| RecordError::Short(what))?;
    let (taken, rest) = from
        .split_at_checked(count)
        .ok_or(RecordError::Short(what))?;
    *from = rest;
    Ok(taken)
}

//! Whose certificate it is: a name in it that says so.

use std::fmt;

use kine2_replication::{ClusterId, Incarnation, NodeRef};
use rustls::pki_types::CertificateDer;
use thiserror::Error;
use webpki::EndEntityCert;

/// Longest name of a node, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
const SCHEME: &str = "kine2://";

/// Whose certificate it is.
///
/// Written as a URI among the certificate's alternative names:
/// `kine2://CLUSTER/node/NAME/INCARNATION`, ids in 32 hexadecimal digits, the name
/// percent-encoded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// The cluster it is a member of.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeRef,
}

/// Why a certificate names no owner.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum OwnerError {
    /// It is no certificate.
    #[error("it is not a certificate: {0}")]
    NotACertificate(String),
    /// It has no name, or several, that begin with `kine2://`.
    #[error("it has {0} names that begin with {SCHEME:?}; one is accepted")]
    Names(usize),
    /// The name is not of the form.
    #[error("{0:?} names no node; kine2://CLUSTER/node/NAME/INCARNATION is accepted")]
    Name(String),
}

impl Owner {
    /// The owner that the certificate names. Whether that is true is not looked at.
    ///
    /// # Errors
    /// If it names none.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, OwnerError> {
        Self::from_uri(&uri_of(certificate)?)
    }

    /// The owner as a URI.
    #[must_use]
    pub fn uri(&self) -> String {
        let mut uri = format!("{SCHEME}{:032x}/node/", self.cluster.0);
        for byte in self.node.name.as_str().bytes() {
            if is_plain(byte) {
                uri.push(char::from(byte));
            } else {
                uri.push_str(&format!("%{byte:02X}"));
            }
        }
        uri.push_str(&format!("/{:032x}", self.node.incarnation.0));
        uri
    }

    /// Reads the URI.
    ///
    /// # Errors
    /// If it is not of the form; only what [`uri`](Self::uri) writes is.
    pub fn from_uri(uri: &str) -> Result<Self, OwnerError> {
        let parse = || {
            let (cluster, rest) = uri.strip_prefix(SCHEME)?.split_once("/node/")?;
            let (name, incarnation) = rest.split_once('/')?;
            let name = plain_name(name)?;
            let known = !name.is_empty() && name.len() <= NAME_BYTES_MAX;
            let owner = Self {
                cluster: ClusterId(id(cluster)?),
                node: NodeRef {
                    name: name.as_str().into(),
                    incarnation: Incarnation(id(incarnation)?),
                },
            };
            (known && owner.uri() == uri).then_some(owner)
        };
        parse().ok_or_else(|| OwnerError::Name(uri.to_owned()))
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {:?} of cluster {:032x}", self.node, self.cluster.0)
    }
}

/// The name an authority's certificate has: that of its cluster.
pub(crate) fn authority_uri(cluster: ClusterId) -> String {
    format!("{SCHEME}{:032x}/authority", cluster.0)
}

/// Reads what [`authority_uri`] writes.
pub(crate) fn cluster_from_uri(uri: &str) -> Option<ClusterId> {
    let cluster = uri.strip_prefix(SCHEME)?.strip_suffix("/authority")?;
    id(cluster).map(ClusterId)
}

/// The one name of a certificate that is ours.
pub(crate) fn uri_of(certificate: &CertificateDer<'_>) -> Result<String, OwnerError> {
    let certificate = EndEntityCert::try_from(certificate)
        .map_err(|error| OwnerError::NotACertificate(error.to_string()))?;
    let ours = certificate
        .valid_uri_names()
        .filter(|uri| uri.starts_with(SCHEME));
    let ours: Vec<&str> = ours.take(2).collect();
    match ours[..] {
        [uri] => Ok(uri.to_owned()),
        _ => Err(OwnerError::Names(ours.len())),
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn plain_name(encoded: &str) -> Option<String> {
    let mut name = Vec::with_capacity(encoded.len());
    let mut bytes = encoded.bytes();
    while let Some(byte) = bytes.next() {
        name.push(match byte {
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                u8::try_from(high << 4 | low).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(name).ok()
}

fn id(digits: &str) -> Option<u128> {
    let hex = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    hex.then(|| u128::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn owner(name: &str) -> Owner {
        Owner {
            cluster: ClusterId(0xc1),
            node: NodeRef::new(name, 0xa1),
        }
    }

    #[test]
    fn a_name_is_encoded_where_it_must_be() {
        let uri = owner("Über/1%").uri();
        assert_eq!(
            uri,
            "kine2://000000000000000000000000000000c1/node/%C3%9Cber%2F1%25/000000000000000000000000000000a1"
        );
        assert_eq!(Owner::from_uri(&uri), Ok(owner("Über/1%")));
    }

    #[test]
    fn only_the_one_way_of_writing_is_read() {
        let good = owner("a").uri();
        for bad in [
            good.to_uppercase(),
            good.replace("/a/", "/%61/"),
            good.replace("/a/", "//"),
            good.replace("/a/", "/a/b/"),
            good.replace("/a/", "/%ff/"),
            good.replace("/a/", "/%/"),
            good.replace("c1/", "/"),
            good.replace("/node/", "/witness/"),
            format!("{good}0"),
            owner(&"x".repeat(256)).uri(),
        ] {
            assert_eq!(Owner::from_uri(&bad), Err(OwnerError::Name(bad.clone())));
        }
    }

    proptest! {
        #[test]
        fn every_name_comes_back(name in ".{1,63}", cluster: u128, incarnation: u128) {
            let owner = Owner {
                cluster: ClusterId(cluster),
                node: NodeRef::new(&name, incarnation),
            };
            prop_assert_eq!(Owner::from_uri(&owner.uri()), Ok(owner));
        }
    }
}

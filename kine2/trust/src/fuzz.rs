//! What the fuzzers run; a test runs the same over the seeds that were kept.

use bytes::Bytes;
use rustls::pki_types::CertificateDer;

use crate::join::read_request;
use crate::{Code, Owner, cluster_of_authority};

/// Reads a code; what is understood is understood again once written.
///
/// # Panics
/// When what is written of a code is read as another.
pub fn code(data: &[u8]) {
    if let Ok(text) = str::from_utf8(data)
        && let Ok(code) = text.parse::<Code>()
    {
        assert_eq!(
            code.to_string().parse(),
            Ok(code),
            "read, written and read again"
        );
    }
}

/// Reads the request of one that nobody knows yet, and the names in its certificate.
///
/// # Panics
/// When what is written of a name is read as another.
pub fn stranger(data: &[u8]) {
    let _ = read_request(Bytes::copy_from_slice(data));
    let certificate = CertificateDer::from(data);
    let _ = cluster_of_authority(&certificate);
    if let Ok(owner) = Owner::of(&certificate) {
        assert_eq!(Owner::from_uri(&owner.uri()), Ok(owner), "of a certificate");
    }
}

//! Errors as clients know them. clientv3 recognises them by their text, so every byte counts
//! (`etcd` section 1.5).

use kine2_mvcc::Refusal;
use tonic::{Code, Status};

use crate::member::RequestError;

/// An error of etcd: its code, and its text behind the prefix all of them have.
pub(crate) fn etcd_error(code: Code, text: &str) -> Status {
    Status::new(code, format!("etcdserver: {text}"))
}

/// Errors of requests that are wrong in themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Invalid {
    EmptyKey,
    KeyNotFound,
    ValueProvided,
    LeaseProvided,
    TooManyOps,
    DuplicateKey,
    SortOption,
    Compare,
    TooLarge,
    LeaseTtlTooLarge,
}

impl From<Invalid> for Status {
    fn from(invalid: Invalid) -> Self {
        let text = match invalid {
            Invalid::EmptyKey => "key is not provided",
            Invalid::KeyNotFound => "key not found",
            Invalid::ValueProvided => "value is provided",
            Invalid::LeaseProvided => "lease is provided",
            Invalid::TooManyOps => "too many operations in txn request",
            Invalid::DuplicateKey => "duplicate key given in txn request",
            Invalid::SortOption => "invalid sort option",
            // etcd lets a compare of an unknown kind hold; refusing it is safer.
            Invalid::Compare => "unknown compare target or result",
            Invalid::TooLarge => "request is too large",
            Invalid::LeaseTtlTooLarge => {
                return etcd_error(Code::OutOfRange, "too large lease TTL");
            }
        };
        etcd_error(Code::InvalidArgument, text)
    }
}

impl From<RequestError> for Status {
    fn from(error: RequestError) -> Self {
        let code = match &error {
            RequestError::Refused(refusal) => refusal_code(*refusal),
            RequestError::TooManyRequests => Code::ResourceExhausted,
            RequestError::NoLeader | RequestError::Stopped | RequestError::TimedOut => {
                Code::Unavailable
            }
            RequestError::State(_) => Code::Internal,
        };
        etcd_error(code, &error.to_string())
    }
}

const fn refusal_code(refusal: Refusal) -> Code {
    match refusal {
        Refusal::Compacted | Refusal::FutureRevision => Code::OutOfRange,
        Refusal::KeyNotFound | Refusal::TooLarge => Code::InvalidArgument,
        Refusal::LeaseNotFound => Code::NotFound,
        Refusal::LeaseExists => Code::FailedPrecondition,
        Refusal::NoSpace => Code::ResourceExhausted,
        Refusal::Corrupt => Code::DataLoss,
    }
}

/// The error of a message that could not be received. tonic says OutOfRange of one that is too
/// large, which clients take for a compacted revision; grpc-go says ResourceExhausted.
pub(crate) fn map_receive_error(status: Status) -> Status {
    if status.code() != Code::OutOfRange {
        return status;
    }
    let numbers = status.message().split(|c: char| !c.is_ascii_digit());
    let mut numbers = numbers.filter(|number| !number.is_empty());
    let (size, max) = (numbers.next().unwrap_or("?"), numbers.next().unwrap_or("?"));
    let text = format!("grpc: received message larger than max ({size} vs. {max})");
    Status::new(Code::ResourceExhausted, text)
}

/// Whether a status is tonic's word for a request that was too large.
pub(crate) fn is_too_large_to_receive(status: &Status) -> bool {
    status.code() == Code::OutOfRange
        && status
            .message()
            .starts_with("Error, decoded message length")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_codes_are_etcds() {
        let status = Status::from(RequestError::Refused(Refusal::Compacted));
        assert_eq!(status.code(), Code::OutOfRange);
        assert_eq!(
            status.message(),
            "etcdserver: mvcc: required revision has been compacted"
        );
        let status = Status::from(RequestError::Stopped);
        assert_eq!(
            (status.code(), status.message()),
            (Code::Unavailable, "etcdserver: server stopped")
        );
        let tonics = "Error, decoded message length too large: found 3000000 bytes, the limit is: 2097152 bytes";
        let status = Status::out_of_range(tonics);
        assert!(is_too_large_to_receive(&status));
        let status = map_receive_error(status);
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(
            status.message(),
            "grpc: received message larger than max (3000000 vs. 2097152)"
        );
        let status = Status::from(Invalid::TooManyOps);
        assert_eq!(
            status.message(),
            "etcdserver: too many operations in txn request"
        );
    }
}

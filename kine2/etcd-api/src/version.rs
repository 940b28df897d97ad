//! Which etcd this server is like.

use tonic::{Code, Status};

use crate::errors::etcd_error;

/// The version clients are told: what they conclude from it holds (`etcd A8`, `A9`).
pub const ETCD_VERSION: &str = "3.6.11";
/// Version of the cluster.
pub(crate) const ETCD_VERSION_CLUSTER: &str = "3.6.0";
/// The same as the answer to a downgrade has it.
pub(crate) const ETCD_VERSION_CLUSTER_MINOR: &str = "3.6";
/// Version of the storage format that `Status` shows.
pub(crate) const ETCD_VERSION_STORAGE: &str = "3.6.0";
/// The one version a cluster of this version can go back to.
const DOWNGRADE_TARGET: (u32, u32) = (3, 5);

/// Checks the target of a downgrade: `major.minor` or `major.minor.patch` (`etcd S56`).
pub(crate) fn downgrade_target(version: &str) -> Result<(), Status> {
    let wrong_format = || {
        etcd_error(
            Code::InvalidArgument,
            "wrong downgrade target version format",
        )
    };
    let numbers: Vec<u32> = version
        .split('.')
        .map(|part| part.parse().map_err(|_| wrong_format()))
        .collect::<Result<_, _>>()?;
    let ([major, minor] | [major, minor, _]) = numbers[..] else {
        return Err(wrong_format());
    };
    if (major, minor) == DOWNGRADE_TARGET {
        Ok(())
    } else {
        Err(etcd_error(
            Code::InvalidArgument,
            "invalid downgrade target version",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s56_one_minor_version_down_is_a_target() {
        assert!(downgrade_target("3.5").is_ok());
        assert!(downgrade_target("3.5.0").is_ok());
        for (version, text) in [
            ("", "wrong downgrade target version format"),
            ("3", "wrong downgrade target version format"),
            ("3.x", "wrong downgrade target version format"),
            ("3.6", "invalid downgrade target version"),
            ("3.4", "invalid downgrade target version"),
        ] {
            let status = downgrade_target(version).unwrap_err();
            assert_eq!(
                status.message(),
                format!("etcdserver: {text}"),
                "{version:?}"
            );
        }
    }
}

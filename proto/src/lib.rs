//! The wire types of the etcd v3 API, and those between nodes and witness, from `.proto` files
//! written for this project.
//!
//! Byte fields are [`bytes::Bytes`]: of a request they share the receive buffer. In responses,
//! [`mvccpb::KeyValue`] and [`mvccpb::Event`] stay in wire form: so they are stored, and an answer
//! copies them as they are.

mod codec;
mod encoded;

pub use codec::WireCodec;

/// Keys and events, in wire form.
pub mod mvccpb {
    pub use crate::encoded::{Event, KeyValue};
}

macro_rules! package {
    ($name:ident, $package:literal, $doc:literal) => {
        #[doc = $doc]
        #[allow(
            warnings,
            clippy::allow_attributes_without_reason,
            reason = "generated"
        )]
        pub mod $name {
            include!(concat!(env!("OUT_DIR"), "/", $package, ".rs"));
        }
    };
}

package!(
    etcdserverpb,
    "etcdserverpb",
    "The services of etcd and their messages."
);
package!(authpb, "authpb", "Users, roles, permissions.");
package!(v3lockpb, "v3lockpb", "The lock service.");
package!(v3electionpb, "v3electionpb", "The election service.");
package!(health, "grpc.health.v1", "The health service of gRPC.");
package!(
    kine2,
    "kine2",
    "What two nodes and their witness say to each other."
);
package!(decoded, "decoded/mvccpb", "Keys and events, taken apart.");

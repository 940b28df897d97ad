//! The wire types of the etcd v3 API, and the traits of its services.
//!
//! Made from the .proto files beside this crate, but for `mvccpb.KeyValue` and `mvccpb.Event`,
//! which stay in wire form: see [`encoded`].

pub mod encoded;

pub mod mvccpb {
    pub use crate::encoded::{Event, KeyValue};
}

pub mod authpb {
    tonic::include_proto!("authpb");
}

pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

pub mod v3lockpb {
    tonic::include_proto!("v3lockpb");
}

pub mod v3electionpb {
    tonic::include_proto!("v3electionpb");
}

pub mod health {
    tonic::include_proto!("grpc.health.v1");
}

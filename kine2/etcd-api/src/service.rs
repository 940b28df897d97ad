//! What all services share.

use kine2_mvcc::Revision;
use kine2_proto::etcdserverpb::ResponseHeader;
use prost::Message;
use tonic::{Code, Status, Streaming};

use crate::answer_budget::AnswerBudget;
use crate::errors::{Invalid, etcd_error, map_receive_error};
use crate::member::Member;
use crate::stop::StopSignal;

/// Limits that clients can see (`etcd` section 4).
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most bytes of an encoded write.
    pub request_bytes_max: usize,
    /// Most operations of a transaction and a level.
    pub txn_ops_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_bytes_max: 1_572_864,
            txn_ops_max: 128,
        }
    }
}

impl Limits {
    /// Most bytes of a message that is received (`etcd` section 4).
    pub(crate) const fn received_bytes_max(&self) -> usize {
        self.request_bytes_max + GRPC_OVERHEAD_BYTES
    }
}

/// What gRPC takes beyond the largest write (`etcd` section 4).
const GRPC_OVERHEAD_BYTES: usize = 512 * 1024;
/// What the log adds to a write, by which etcd's limit is measured.
const LOG_OVERHEAD_BYTES: usize = 32;

/// The services of a member; cloning shares it.
#[derive(Clone, Debug)]
pub(crate) struct Service<M> {
    pub(crate) member: M,
    pub(crate) limits: Limits,
    pub(crate) stop: StopSignal,
    pub(crate) answers: AnswerBudget,
}

impl<M: Member> Service<M> {
    /// The header of an answer (`etcd S3`).
    pub(crate) fn header(&self, revision: Revision) -> Option<ResponseHeader> {
        let identity = self.member.identity();
        Some(ResponseHeader {
            cluster_id: identity.cluster_id,
            member_id: identity.member_id,
            revision: revision.0,
            raft_term: self.member.term(),
        })
    }

    /// Refuses a write that is too large for the log.
    pub(crate) fn check_size(&self, request: &impl Message) -> Result<(), Invalid> {
        let bytes = request.encoded_len() + LOG_OVERHEAD_BYTES;
        if bytes > self.limits.request_bytes_max {
            Err(Invalid::TooLarge)
        } else {
            Ok(())
        }
    }

    /// The next request of a client's stream; `None` once it has closed its side.
    pub(crate) async fn next_request<T>(
        &self,
        requests: &mut Streaming<T>,
    ) -> Result<Option<T>, Status> {
        requests.message().await.map_err(map_receive_error)
    }
}

/// The error of what this server does not do.
pub(crate) fn unsupported(what: &str) -> Status {
    etcd_error(
        Code::Unimplemented,
        &format!("{what} not supported by this server"),
    )
}

/// The store has answered a command with the answer of another.
pub(crate) fn wrong_answer() -> ! {
    panic!("the answer of another command")
}

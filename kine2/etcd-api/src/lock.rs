//! The Lock service, which this server does not have. Clients lock with transactions and watches.

use kine2_proto::v3lockpb::lock_server::Lock;
use kine2_proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use tonic::{Request, Response, Status};

use crate::member::Member;
use crate::service::{Service, unsupported};

#[tonic::async_trait]
impl<M: Member> Lock for Service<M> {
    async fn lock(&self, _request: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        Err(unsupported("the Lock service is"))
    }

    async fn unlock(
        &self,
        _request: Request<UnlockRequest>,
    ) -> Result<Response<UnlockResponse>, Status> {
        Err(unsupported("the Lock service is"))
    }
}

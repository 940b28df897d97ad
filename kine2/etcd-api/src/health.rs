//! The health service of gRPC: the server as a whole, under the empty name.

use std::pin::Pin;

use futures_util::Stream;
use futures_util::stream::unfold;
use kine2_proto::health::health_check_response::ServingStatus;
use kine2_proto::health::health_server::Health;
use kine2_proto::health::{HealthCheckRequest, HealthCheckResponse};
use tonic::{Request, Response, Status};

use crate::member::{Member, RequestError};
use crate::service::Service;

#[tonic::async_trait]
impl<M: Member> Health for Service<M> {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if !request.into_inner().service.is_empty() {
            return Err(Status::not_found("unknown service"));
        }
        Ok(Response::new(self.serving()))
    }

    /// Tells the state once, and the end of serving.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let first = if request.into_inner().service.is_empty() {
            self.serving()
        } else {
            response(ServingStatus::ServiceUnknown)
        };
        let watch = HealthWatch {
            service: self.clone(),
            next: Next::State(first),
        };
        Ok(Response::new(Box::pin(unfold(watch, HealthWatch::step))))
    }
}

impl<M: Member> Service<M> {
    fn serving(&self) -> HealthCheckResponse {
        let serving = !self.stop.is_stopped() && self.member.status().primary != 0;
        response(if serving {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        })
    }
}

struct HealthWatch<M> {
    service: Service<M>,
    next: Next,
}

enum Next {
    State(HealthCheckResponse),
    /// The state was told; wait for the stop.
    Stop,
    Error,
    Nothing,
}

impl<M: Member> HealthWatch<M> {
    async fn step(mut self) -> Option<(Result<HealthCheckResponse, Status>, Self)> {
        let (result, next) = match self.next {
            Next::State(state) => (Ok(state), Next::Stop),
            Next::Stop => {
                self.service.stop.stopped().await;
                (Ok(response(ServingStatus::NotServing)), Next::Error)
            }
            Next::Error => (Err(RequestError::Stopped.into()), Next::Nothing),
            Next::Nothing => return None,
        };
        self.next = next;
        Some((result, self))
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}

//! Which part answers a request: a gRPC service by its path, or plain HTTP.

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use kine2_proto::etcdserverpb::auth_server::AuthServer;
use kine2_proto::etcdserverpb::cluster_server::ClusterServer;
use kine2_proto::etcdserverpb::kv_server::KvServer;
use kine2_proto::etcdserverpb::lease_server::LeaseServer;
use kine2_proto::etcdserverpb::maintenance_server::MaintenanceServer;
use kine2_proto::etcdserverpb::watch_server::WatchServer;
use kine2_proto::health::health_server::HealthServer;
use kine2_proto::v3electionpb::election_server::ElectionServer;
use kine2_proto::v3lockpb::lock_server::LockServer;
use tonic::{Code, Status};
use tower_service::Service as TowerService;

use crate::errors::{is_too_large_to_receive, map_receive_error};
use crate::member::{Member, RequestError};
use crate::records_body::RecordsBody;
use crate::response_body::ResponseBody;
use crate::rpc::{CountedCall, Frequent, Rpc, RpcCounters, RpcService};
use crate::service::Service;
use crate::unary::{message, receive};

/// Metadata by which a client refuses answers of a member that has no leader, and gives watches up
/// when it has none any more (`etcd S43`).
pub(crate) const REQUIRE_LEADER: &str = "hasleader";

/// Header of a request whose message is compressed, or may be.
const COMPRESSION: &str = "grpc-encoding";

/// The answer of a frequent call.
enum Answer {
    Message(Bytes),
    Records(RecordsBody),
}

/// All services of a member.
#[derive(Debug)]
pub(crate) struct Dispatch<M> {
    service: Arc<Service<M>>,
    rpcs: Arc<RpcCounters>,
}

impl<M: Member> Dispatch<M> {
    pub(crate) fn new(service: Service<M>) -> Self {
        Self {
            service: Arc::new(service),
            rpcs: Arc::new(RpcCounters::new()),
        }
    }

    /// The same services, for a connection of its own.
    pub(crate) fn for_connection(&self) -> Self {
        let service = Service::clone(&self.service);
        let answers = service.answers.for_connection();
        Self {
            service: Arc::new(Service { answers, ..service }),
            rpcs: Arc::clone(&self.rpcs),
        }
    }

    /// Answers gRPC and plain HTTP.
    pub(crate) async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Response<ResponseBody> {
        if is_grpc(&request) {
            self.answer_grpc(request).await
        } else {
            self.answer_http(request).await
        }
    }

    /// Answers plain HTTP only.
    pub(crate) async fn answer_http(&self, request: Request<Incoming>) -> Response<ResponseBody> {
        let (method, uri) = (request.method(), request.uri());
        let response = self.service.answer_http(method, uri, &self.rpcs).await;
        response.map(ResponseBody::whole)
    }

    async fn answer_grpc(&self, request: Request<Incoming>) -> Response<ResponseBody> {
        let Some(rpc) = Rpc::of_path(request.uri().path()) else {
            return refuse(Status::unimplemented(unknown(request.uri().path())));
        };
        let mut call = self.rpcs.start(rpc);
        let require_leader = request.headers().contains_key(REQUIRE_LEADER);
        if require_leader && self.service.member.status().primary == 0 {
            call.count(Code::Unavailable);
            return refuse(RequestError::NoLeader.into());
        }
        let compressed = request.headers().contains_key(COMPRESSION);
        if let Some(frequent) = rpc.frequent().filter(|_| !compressed) {
            let answer = self.answer_frequent(frequent, request.into_body()).await;
            return answer_message(call, answer);
        }
        let response = Box::pin(self.call(rpc.service(), request)).await;
        if let Some(status) = Status::from_header_map(response.headers()) {
            return answer_without_body(call, status, response);
        }
        let (mut parts, body) = response.into_parts();
        let body = match parts.extensions.remove::<RecordsBody>() {
            Some(records) => ResponseBody::records(records, call),
            None => ResponseBody::grpc(body, call),
        };
        Response::from_parts(parts, body)
    }

    async fn answer_frequent(&self, call: Frequent, body: Incoming) -> Result<Answer, Status> {
        let (service, bytes_max) = (&self.service, self.service.limits.received_bytes_max());
        Ok(match call {
            Frequent::Range => {
                let request = receive(body, bytes_max).await?;
                let mut response = service.answer_range(request).await?;
                match response.extensions_mut().remove::<RecordsBody>() {
                    Some(records) => Answer::Records(records),
                    None => Answer::Message(message(response.get_ref())?),
                }
            }
            Frequent::Txn => {
                let request = receive(body, bytes_max).await?;
                Answer::Message(message(&service.answer_txn(request).await?)?)
            }
            Frequent::Put => {
                let request = receive(body, bytes_max).await?;
                Answer::Message(message(&service.answer_put(request).await?)?)
            }
        })
    }

    async fn call<B>(&self, service: RpcService, request: Request<B>) -> Response<tonic::body::Body>
    where
        B: Body + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    {
        let inner = Arc::clone(&self.service);
        let max = self.service.limits.received_bytes_max();
        macro_rules! call {
            ($server:ident) => {
                $server::from_arc(inner)
                    .max_decoding_message_size(max)
                    .call(request)
                    .await
            };
        }
        let answer = match service {
            RpcService::Kv => call!(KvServer),
            RpcService::Watch => call!(WatchServer),
            RpcService::Lease => call!(LeaseServer),
            RpcService::Cluster => call!(ClusterServer),
            RpcService::Maintenance => call!(MaintenanceServer),
            RpcService::Auth => call!(AuthServer),
            RpcService::Lock => call!(LockServer),
            RpcService::Election => call!(ElectionServer),
            RpcService::Health => call!(HealthServer),
        };
        answer.unwrap_or_else(|never| match never {})
    }
}

fn answer_message(mut call: CountedCall, answer: Result<Answer, Status>) -> Response<ResponseBody> {
    let body = match answer {
        Ok(Answer::Message(message)) => ResponseBody::message(message, call),
        Ok(Answer::Records(records)) => ResponseBody::records(records, call),
        Err(status) => {
            let status = if is_too_large_to_receive(&status) {
                map_receive_error(status)
            } else {
                status
            };
            call.count(status.code());
            return refuse(status);
        }
    };
    let mut response = Response::new(body);
    let content_type = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

fn is_grpc(request: &Request<Incoming>) -> bool {
    request.version() == http::Version::HTTP_2
        && request.method() == Method::POST
        && content_type(request.headers()).starts_with(b"application/grpc")
}

fn content_type(headers: &HeaderMap) -> &[u8] {
    headers
        .get(CONTENT_TYPE)
        .map_or(&[], |value| value.as_bytes())
}

/// A call that failed before its first answer.
fn answer_without_body(
    mut call: CountedCall,
    status: Status,
    response: Response<tonic::body::Body>,
) -> Response<ResponseBody> {
    if is_too_large_to_receive(&status) {
        let status = map_receive_error(status);
        call.count(status.code());
        return refuse(status);
    }
    call.count(status.code());
    response.map(|_empty| ResponseBody::empty())
}

fn refuse(status: Status) -> Response<ResponseBody> {
    status.into_http::<()>().map(|()| ResponseBody::empty())
}

fn unknown(path: &str) -> String {
    match path
        .strip_prefix('/')
        .and_then(|path| path.rsplit_once('/'))
    {
        Some((service, _)) if !Rpc::has_service(service) => format!("unknown service {service}"),
        Some((service, method)) => format!("unknown method {method} for service {service}"),
        None => format!("malformed method name: {path:?}"),
    }
}

//! A server under test and its client.

use std::time::Duration;

use futures_util::Stream;
use http::uri::PathAndQuery;
use kine2_etcd_api::{ServeConfig, Server};
use kine2_proto::WireCodec;
use prost::Message;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

use crate::double::Double;

/// Nothing in these tests takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("in time")
}

/// A server that runs until it is stopped or dropped.
pub(crate) struct Running {
    pub(crate) member: Double,
    pub(crate) client_url: String,
    pub(crate) admin_url: Option<String>,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<()>,
}

impl Running {
    /// On a port of the loopback, without TLS.
    pub(crate) fn start() -> Self {
        Self::with(ServeConfig {
            client_urls: vec!["http://127.0.0.1:0".parse().unwrap()],
            ..ServeConfig::default()
        })
    }

    pub(crate) fn with(config: ServeConfig) -> Self {
        let server = Server::bind(config).unwrap();
        let client_url = server.client_urls()[0].to_string();
        let admin_url = server.admin_urls().first().map(ToString::to_string);
        let member = Double::new();
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(server.serve(member.clone(), async {
            let _ = stopped.await;
        }));
        Self {
            member,
            client_url,
            admin_url,
            stop,
            ended,
        }
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(Endpoint::from_shared(self.client_url.clone()).unwrap()).await
    }

    /// Asks it to stop; answers when it has.
    pub(crate) fn stop(self) -> JoinHandle<()> {
        let _ = self.stop.send(());
        self.ended
    }
}

#[derive(Clone)]
pub(crate) struct Client(Channel);

impl From<Channel> for Client {
    fn from(channel: Channel) -> Self {
        Self(channel)
    }
}

impl Client {
    pub(crate) async fn connect(endpoint: Endpoint) -> Self {
        Self(in_time(endpoint.connect()).await.unwrap())
    }

    pub(crate) async fn call<Q, A>(&self, path: &'static str, request: Q) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        self.call_with(path, Request::new(request)).await
    }

    pub(crate) async fn call_with<Q, A>(
        &self,
        path: &'static str,
        request: Request<Q>,
    ) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut grpc = self.ready().await;
        let path = PathAndQuery::from_static(path);
        let answer = in_time(grpc.unary(request, path, WireCodec::default())).await?;
        Ok(answer.into_inner())
    }

    pub(crate) async fn server_stream<Q, A>(
        &self,
        path: &'static str,
        request: Q,
    ) -> Result<Streaming<A>, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut grpc = self.ready().await;
        let path = PathAndQuery::from_static(path);
        let request = Request::new(request);
        let answer = in_time(grpc.server_streaming(request, path, WireCodec::default())).await?;
        Ok(answer.into_inner())
    }

    pub(crate) async fn both_streams<Q, A>(
        &self,
        path: &'static str,
        requests: impl Stream<Item = Q> + Send + 'static,
    ) -> Result<Streaming<A>, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        self.both_streams_with(path, Request::new(requests)).await
    }

    pub(crate) async fn both_streams_with<Q, A>(
        &self,
        path: &'static str,
        request: Request<impl Stream<Item = Q> + Send + 'static>,
    ) -> Result<Streaming<A>, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut grpc = self.ready().await;
        let path = PathAndQuery::from_static(path);
        let answer = in_time(grpc.streaming(request, path, WireCodec::default())).await?;
        Ok(answer.into_inner())
    }

    async fn ready(&self) -> Grpc<Channel> {
        let mut grpc = Grpc::new(self.0.clone()).max_decoding_message_size(usize::MAX);
        in_time(grpc.ready()).await.unwrap();
        grpc
    }
}

/// The next message of a stream.
pub(crate) async fn next<A>(stream: &mut Streaming<A>) -> A {
    in_time(stream.message())
        .await
        .unwrap()
        .expect("the stream goes on")
}

//! A bidirectional stream of tonic on a connection that is there already.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::StreamExt;
use http::uri::PathAndQuery;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::TokioIo;
use kine2_proto::WireCodec;
use kine2_proto::kine2::{Entry, LinkEcho};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::{Status, Streaming};
use tower_service::Service;

use crate::transport::Pipe;

const PATH: &str = "/kine2.Bench/Append";

/// Runs what hyper spawns on this thread.
#[derive(Clone, Copy, Debug)]
struct Local;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// Acknowledges entries until the connection ends.
pub(crate) async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
) -> anyhow::Result<()> {
    let service = hyper::service::service_fn(|request: Request<Incoming>| async {
        let mut grpc = tonic::server::Grpc::new(WireCodec::<LinkEcho, Entry>::default());
        Ok::<_, Infallible>(grpc.streaming(Echo, request.map(Body::new)).await)
    });
    let connection = hyper::server::conn::http2::Builder::new(Local)
        .serve_connection(TokioIo::new(stream), service);
    // Its end may come as an error: nobody says goodbye.
    drop(connection.await);
    Ok(())
}

struct Echo;

impl tonic::server::StreamingService<Entry> for Echo {
    type Response = LinkEcho;
    type ResponseStream =
        Pin<Box<dyn futures_util::Stream<Item = Result<LinkEcho, Status>> + Send>>;
    type Future = std::future::Ready<Result<tonic::Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: tonic::Request<Streaming<Entry>>) -> Self::Future {
        let echoes = request
            .into_inner()
            .map(|entry| entry.map(|Entry { .. }| LinkEcho::default()));
        std::future::ready(Ok(tonic::Response::new(Box::pin(echoes))))
    }
}

/// hyper's connection as tonic wants it.
struct Connection(SendRequest<Body>);

impl Service<Request<Body>> for Connection {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// Opens the stream.
pub(crate) async fn open(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    room: usize,
) -> anyhow::Result<Pipe> {
    let (sender, connection) =
        hyper::client::conn::http2::handshake(Local, TokioIo::new(stream)).await?;
    tokio::task::spawn_local(async move { drop(connection.await) });
    let (entries, waiting) = mpsc::channel::<Entry>(room);
    let (came, echoes) = mpsc::channel(room);
    let origin = "http://node".parse()?;
    let mut grpc = tonic::client::Grpc::with_origin(Connection(sender), origin);
    tokio::task::spawn_local(async move {
        grpc.ready().await?;
        let request = tonic::Request::new(ReceiverStream::new(waiting));
        let codec = WireCodec::<Entry, LinkEcho>::default();
        let path = PathAndQuery::from_static(PATH);
        let mut answers: Streaming<LinkEcho> =
            grpc.streaming(request, path, codec).await?.into_inner();
        while let Some(echo) = answers.message().await? {
            if came.send(echo).await.is_err() {
                break;
            }
        }
        anyhow::Ok(())
    });
    Ok(Pipe { entries, echoes })
}

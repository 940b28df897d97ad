//! The server: listeners, connections, and how they end.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::answer_budget::AnswerBudget;
use crate::dispatch::Dispatch;
use crate::first_bytes::hear;
use crate::gathered_io::GatheredIo;
use crate::listener::{Connection, ListenUrl, Listener};
use crate::member::Member;
use crate::response_body::ResponseBody;
use crate::service::{Limits, Service};
use crate::stop::{StopSignal, stop_channel};
use crate::tls::{TlsError, TlsFiles, TlsReloader};

/// Most connections at a time on one listener; more wait in the kernel.
const CONNECTIONS_MAX: usize = 16_384;
/// Open files that connections leave to the log and the state: these fail for good without.
const FILES_RESERVED: u64 = 128;
/// As many connections each listener may have, however few files are allowed.
const CONNECTIONS_MIN: usize = 16;
/// Most TLS handshakes at a time on one listener.
const HANDSHAKES_MAX: usize = 1024;
/// A handshake that takes longer is given up.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Rest after an accept that failed for want of files or memory.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// An HTTP/1.1 client has this long for the head of a request, the wait between two of them included.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How often HTTP/2 clients are asked whether they are still there.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(60);
/// How long they have to answer (`etcd` section 4).
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Most bytes of a request's headers.
const HEADER_LIST_BYTES_MAX: u32 = 64 << 10;
/// Bytes of an answer that HTTP/2 takes ahead of the client's window.
const SEND_BUFFER_BYTES: usize = 256 << 10;
/// Streams of one connection that the client may have reset before they were looked at.
/// apiservers cancel all day, and h2 closes the connection beyond this (`etcd` section 4).
const PENDING_RESETS_MAX: usize = 10_000;

/// What a server is to be.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// Where gRPC and plain HTTP are answered.
    pub client_urls: Vec<ListenUrl>,
    /// Where only plain HTTP is answered: health and metrics.
    pub admin_urls: Vec<ListenUrl>,
    /// Needed if an address asks for TLS.
    pub tls: Option<TlsFiles>,
    /// Limits that clients can see.
    pub limits: Limits,
    /// How long running calls have to end when the server stops.
    pub drain_timeout: Duration,
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self {
            client_urls: Vec::new(),
            admin_urls: Vec::new(),
            tls: None,
            limits: Limits::default(),
            drain_timeout: Duration::from_secs(5),
        }
    }
}

/// Why a server could not be set up.
#[derive(Debug, Error)]
pub enum ServeError {
    /// An address could not be bound.
    #[error("listen on {url}: {source}")]
    Bind {
        /// The address.
        url: ListenUrl,
        /// What the system says.
        source: io::Error,
    },
    /// The files for TLS cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An address asks for TLS, and no files are configured.
    #[error("{url} needs a certificate and a key")]
    NoCertificate {
        /// The address.
        url: ListenUrl,
    },
}

/// A server whose sockets are bound: clients can connect and wait until it serves.
#[derive(Debug)]
pub struct Server {
    ports: Vec<Port>,
    limits: Limits,
    drain_timeout: Duration,
}

#[derive(Debug)]
struct Port {
    listener: Listener,
    connections_max: usize,
    url: ListenUrl,
    tls: Option<Arc<TlsReloader>>,
    role: Role,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Client,
    Admin,
}

impl Server {
    /// Checks the configuration, then binds. Must be called within a runtime.
    ///
    /// # Errors
    /// If the configuration does not hold together or an address cannot be bound.
    pub fn bind(config: ServeConfig) -> Result<Self, ServeError> {
        let tls = config.tls.map(TlsReloader::new).transpose()?.map(Arc::new);
        let client = config
            .client_urls
            .into_iter()
            .map(|url| (url, Role::Client));
        let admin = config.admin_urls.into_iter().map(|url| (url, Role::Admin));
        let urls: Vec<(ListenUrl, Role)> = client.chain(admin).collect();
        if tls.is_none()
            && let Some((url, _)) = urls.iter().find(|(url, _)| url.tls)
        {
            return Err(ServeError::NoCertificate { url: url.clone() });
        }
        let connections_max = connections_max(urls.len());
        let ports = urls
            .into_iter()
            .map(|(url, role)| Port::bind(url, role, tls.as_ref(), connections_max));
        Ok(Self {
            ports: ports.collect::<Result<_, _>>()?,
            limits: config.limits,
            drain_timeout: config.drain_timeout,
        })
    }

    /// The addresses for clients as they were bound: a port of 0 is replaced by the one given.
    #[must_use]
    pub fn client_urls(&self) -> Vec<ListenUrl> {
        self.urls(Role::Client)
    }

    /// The addresses for health and metrics as they were bound.
    #[must_use]
    pub fn admin_urls(&self) -> Vec<ListenUrl> {
        self.urls(Role::Admin)
    }

    fn urls(&self, role: Role) -> Vec<ListenUrl> {
        let of_role = self.ports.iter().filter(|port| port.role == role);
        of_role.map(|port| port.url.clone()).collect()
    }

    /// Serves until `shutdown` is ready. Then no connection is accepted any more, streams end
    /// with `Unavailable`, and calls under way have the drain timeout to end.
    pub async fn serve<M: Member>(self, member: M, shutdown: impl Future<Output = ()>) {
        let (stopper, stop) = stop_channel();
        let dispatch = Arc::new(Dispatch::new(Service {
            member,
            limits: self.limits,
            stop: stop.clone(),
            answers: AnswerBudget::new(),
        }));
        let mut accepting = JoinSet::new();
        for port in self.ports {
            tracing::info!(url = %port.url, "listening");
            accepting.spawn(port.serve(Arc::clone(&dispatch), stop.clone()));
        }
        shutdown.await;
        stopper.stop();
        let drained = async { while accepting.join_next().await.is_some() {} };
        if tokio::time::timeout(self.drain_timeout, drained)
            .await
            .is_err()
        {
            tracing::warn!("closing connections whose calls did not end in time");
        }
    }
}

impl Port {
    fn bind(
        url: ListenUrl,
        role: Role,
        tls: Option<&Arc<TlsReloader>>,
        connections_max: usize,
    ) -> Result<Self, ServeError> {
        let listener = Listener::bind(&url.address);
        let listener = listener.and_then(|listener| {
            let address = listener.address()?;
            Ok((listener, address))
        });
        match listener {
            Err(source) => Err(ServeError::Bind { url, source }),
            Ok((listener, address)) => Ok(Self {
                listener,
                connections_max,
                tls: if url.tls { tls.cloned() } else { None },
                url: ListenUrl {
                    tls: url.tls,
                    address,
                },
                role,
            }),
        }
    }

    /// Accepts until the stop, then waits for the connections to end. Dropping the future drops
    /// the connections.
    async fn serve<M: Member>(self, dispatch: Arc<Dispatch<M>>, mut stop: StopSignal) {
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        let http = Arc::new(http_server());
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = stop.stopped() => break,
                Some(_ended) = connections.join_next() => continue,
                accepted = self.listener.accept(), if connections.len() < self.connections_max => accepted,
            };
            match accepted {
                Ok(connection) => {
                    let served = Served {
                        dispatch: Arc::clone(&dispatch),
                        http: Arc::clone(&http),
                        role: self.role,
                        stop: stop.clone(),
                    };
                    connections.spawn(served.connection(
                        connection,
                        self.tls.clone(),
                        Arc::clone(&handshakes),
                    ));
                }
                Err(error) if is_of_the_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(url = %self.url, %error, "cannot accept connections");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
        // Refuse new connections from here on.
        drop(self.listener);
        while connections.join_next().await.is_some() {}
    }
}

/// What one connection is served with.
struct Served<M> {
    dispatch: Arc<Dispatch<M>>,
    http: Arc<auto::Builder<TokioExecutor>>,
    role: Role,
    stop: StopSignal,
}

impl<M: Member> Served<M> {
    async fn connection(
        mut self,
        connection: Connection,
        tls: Option<Arc<TlsReloader>>,
        handshakes: Arc<Semaphore>,
    ) {
        let Some(tls) = tls else {
            return self.http(connection).await;
        };
        let handshake = async {
            let _permit = handshakes.acquire().await;
            let acceptor = tls.acceptor();
            tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(connection)).await
        };
        let mut stop = self.stop.clone();
        let encrypted = tokio::select! {
            () = stop.stopped() => return,
            encrypted = handshake => encrypted,
        };
        match encrypted {
            Ok(Ok(encrypted)) => self.http(encrypted).await,
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
            Err(_elapsed) => tracing::debug!("TLS handshake timed out"),
        }
    }

    async fn http(&mut self, mut io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let first = tokio::select! {
            () = self.stop.stopped() => return,
            first = hear(&mut io) => first,
        };
        let first = match first {
            Ok(first) => first,
            Err(error) => {
                tracing::debug!(%error, "connection ended before its first request");
                return;
            }
        };
        let (dispatch, role) = (Arc::new(self.dispatch.for_connection()), self.role);
        let service = service_fn(move |request: Request<Incoming>| {
            let dispatch = Arc::clone(&dispatch);
            async move {
                let response: Response<ResponseBody> = match role {
                    Role::Client => dispatch.answer(request).await,
                    Role::Admin => dispatch.answer_http(request).await,
                };
                Ok::<_, std::convert::Infallible>(response)
            }
        });
        let io = GatheredIo::new(io, first);
        let connection = self
            .http
            .serve_connection(TokioIo::new(io.clone()), service);
        let mut connection = Box::pin(connection);
        let stop = self.stop.stopped();
        let mut stop = pin!(stop);
        let mut stopping = false;
        let ended = poll_fn(|context| {
            if !stopping && stop.as_mut().poll(context).is_ready() {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            let ended = connection
                .as_mut()
                .poll(context)
                .map_err(|error| error.to_string());
            match io.poll_write_out(context) {
                Poll::Ready(Err(error)) if ended.is_pending() => {
                    Poll::Ready(Err(error.to_string()))
                }
                _ => ended,
            }
        })
        .await;
        if let Err(error) = ended {
            tracing::debug!(error, "connection ended");
        }
    }
}

/// HTTP/1.1 and HTTP/2, told apart by the first bytes.
fn http_server() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(None)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(None)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    builder
}

/// Most connections of each of `listeners`, by the files that this process may open.
fn connections_max(listeners: usize) -> usize {
    use rustix::process::{Resource, getrlimit};
    let Some(files) = getrlimit(Resource::Nofile).current else {
        return CONNECTIONS_MAX;
    };
    let files = usize::try_from(files.saturating_sub(FILES_RESERVED)).unwrap_or(usize::MAX);
    (files / listeners.max(1)).clamp(CONNECTIONS_MIN, CONNECTIONS_MAX)
}

/// Errors of accept that concern only the connection that did not come about.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}

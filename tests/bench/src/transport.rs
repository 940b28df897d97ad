//! The stream of messages between nodes beside a stream of tonic, both over the same TLS: an
//! entry of 1 KB goes one way, its acknowledgement comes back.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::{Bytes, BytesMut};
use kine2_peer::framing::{MESSAGE_BYTES_MAX, MessageReader, put};
use kine2_proto::kine2::{Entry, LinkEcho};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::process::{own_cpu, pause, pin};
use crate::report::median;
use crate::servers::{CLIENT_CORE, SERVER_CORE};
use crate::tonic_stream;

const PAYLOAD_BYTES: usize = 1024;
/// Entries on their way at once.
const IN_FLIGHT: [usize; 3] = [1, 16, IN_FLIGHT_MAX];
const IN_FLIGHT_MAX: usize = 64;
const WARM_UP: Duration = Duration::from_millis(500);
/// Round trips to make room for at once.
const TRIPS_EXPECTED: usize = 1 << 20;
const NAME: &str = "node";

/// How messages go over the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    /// `kine2_peer::framing`.
    Framed,
    Tonic,
}

/// One turn of one transport.
#[derive(Debug)]
struct Turn {
    transport: Transport,
    in_flight: usize,
    trips_per_second: f64,
    p50_us: f64,
    p99_us: f64,
    /// Of both ends, per round trip.
    cpu_us: f64,
}

/// Entries to send and acknowledgements that came.
pub(crate) struct Pipe {
    pub(crate) entries: mpsc::Sender<Entry>,
    pub(crate) echoes: mpsc::Receiver<LinkEcho>,
}

/// Measures both in turn and prints a table.
pub(crate) fn run(rounds: usize, window: Duration) -> anyhow::Result<()> {
    let tls = Tls::new()?;
    let mut turns = Vec::new();
    for round in 1..=rounds {
        for in_flight in IN_FLIGHT {
            let mut order = [Transport::Framed, Transport::Tonic];
            order.rotate_left(round % 2);
            for transport in order {
                let turn = take_turn(&tls, transport, in_flight, window)?;
                eprintln!("round {round} {turn:?}");
                turns.push(turn);
            }
        }
    }
    println!(
        "| entries on their way | transport | round trips/s | p50 µs | p99 µs | CPU µs per round trip, both ends |"
    );
    println!("|---|---|---|---|---|---|");
    for in_flight in IN_FLIGHT {
        for (transport, name) in [
            (Transport::Framed, "messages with their length"),
            (Transport::Tonic, "tonic"),
        ] {
            let of = |pick: fn(&Turn) -> f64| {
                let same = turns
                    .iter()
                    .filter(|turn| (turn.transport, turn.in_flight) == (transport, in_flight));
                median(same.map(pick))
            };
            println!(
                "| {in_flight} | {name} | {:.0} | {:.0} | {:.0} | {:.1} |",
                of(|turn| turn.trips_per_second),
                of(|turn| turn.p50_us),
                of(|turn| turn.p99_us),
                of(|turn| turn.cpu_us)
            );
        }
    }
    println!("\nMedians over {rounds} rounds; one end on each core.");
    Ok(())
}

fn take_turn(
    tls: &Tls,
    transport: Transport,
    in_flight: usize,
    window: Duration,
) -> anyhow::Result<Turn> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let acceptor = TlsAcceptor::from(Arc::clone(&tls.server));
    let answering = std::thread::spawn(move || {
        pin(SERVER_CORE)?;
        local(answer(listener, acceptor, transport))?;
        anyhow::Ok(own_cpu())
    });
    pin(CLIENT_CORE)?;
    let cpu_before = own_cpu();
    let (mut latencies_us, trips, took) = local(ask(tls, address, transport, in_flight, window))?;
    let own = own_cpu() - cpu_before;
    let theirs = answering.join().expect("the other end does not panic")?;
    latencies_us.sort_unstable();
    let at = |percent: usize| {
        let slot = latencies_us.len().saturating_sub(1) * percent / 100;
        latencies_us.get(slot).copied().map_or(0.0, f64::from)
    };
    Ok(Turn {
        transport,
        in_flight,
        trips_per_second: latencies_us.len() as f64 / took.as_secs_f64(),
        p50_us: at(50),
        p99_us: at(99),
        cpu_us: (own + theirs).as_secs_f64() * 1e6 / trips as f64,
    })
}

fn local<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = LocalSet::new().block_on(&runtime, future);
    // What was on its way has ended by itself.
    pause(Duration::from_millis(1));
    result
}

/// Acknowledges entries until the connection ends.
async fn answer(
    listener: std::net::TcpListener,
    acceptor: TlsAcceptor,
    transport: Transport,
) -> anyhow::Result<()> {
    let (stream, _) = TcpListener::from_std(listener)?.accept().await?;
    stream.set_nodelay(true)?;
    let stream = acceptor.accept(stream).await?;
    match transport {
        Transport::Framed => answer_framed(stream).await,
        Transport::Tonic => tonic_stream::answer(stream).await,
    }
}

/// Keeps so many entries on their way: latencies of the window, round trips of all, and how long
/// the window was.
async fn ask(
    tls: &Tls,
    address: SocketAddr,
    transport: Transport,
    in_flight: usize,
    window: Duration,
) -> anyhow::Result<(Vec<u32>, u64, Duration)> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(NAME)?;
    let connector = TlsConnector::from(Arc::clone(&tls.client));
    let stream = connector.connect(name, stream).await?;
    let mut pipe = match transport {
        Transport::Framed => open_framed(stream, in_flight),
        Transport::Tonic => tonic_stream::open(stream, in_flight).await?,
    };
    let payload = Bytes::from(vec![7; PAYLOAD_BYTES]);
    let entry = || Entry {
        payload: payload.clone(),
        ..Entry::default()
    };
    let mut sent = std::collections::VecDeque::with_capacity(in_flight);
    for _ in 0..in_flight {
        pipe.entries.send(entry()).await?;
        sent.push_back(Instant::now());
    }
    let (mut latencies_us, mut trips) = (Vec::with_capacity(TRIPS_EXPECTED), 0);
    let begun = Instant::now();
    while begun.elapsed() < WARM_UP + window {
        pipe.echoes.recv().await.context("the other end is there")?;
        trips += 1;
        let since = sent.pop_front().context("one was sent for each")?;
        if begun.elapsed() >= WARM_UP {
            latencies_us.push(u32::try_from(since.elapsed().as_micros())?);
        }
        pipe.entries.send(entry()).await?;
        sent.push_back(Instant::now());
    }
    ensure!(trips > 0, "nothing was answered");
    Ok((latencies_us, trips, begun.elapsed() - WARM_UP))
}

async fn answer_framed(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
) -> anyhow::Result<()> {
    let (read, write) = tokio::io::split(stream);
    let (answers, waiting) = mpsc::channel(IN_FLIGHT_MAX);
    let writing = tokio::task::spawn_local(write_framed(write, waiting));
    let mut reader = MessageReader::new(read, MESSAGE_BYTES_MAX);
    // The end of the connection may come as an error: nobody says goodbye.
    while let Ok(Some(Entry { .. })) = reader.next().await {
        answers.send(LinkEcho::default()).await?;
    }
    writing.abort();
    Ok(())
}

fn open_framed(stream: impl AsyncRead + AsyncWrite + Unpin + 'static, room: usize) -> Pipe {
    let (read, write) = tokio::io::split(stream);
    let (entries, waiting) = mpsc::channel(room);
    let (came, echoes) = mpsc::channel(room);
    tokio::task::spawn_local(write_framed(write, waiting));
    tokio::task::spawn_local(async move {
        let mut reader = MessageReader::new(read, MESSAGE_BYTES_MAX);
        while let Ok(Some(echo)) = reader.next().await {
            if came.send(echo).await.is_err() {
                return;
            }
        }
    });
    Pipe { entries, echoes }
}

/// Writes what waits together, as the nodes do.
async fn write_framed<M: prost::Message>(
    mut write: impl AsyncWrite + Unpin,
    mut waiting: mpsc::Receiver<M>,
) -> anyhow::Result<()> {
    let mut out = BytesMut::new();
    while let Some(first) = waiting.recv().await {
        put(&mut out, &first);
        while let Ok(more) = waiting.try_recv() {
            put(&mut out, &more);
        }
        write.write_all(&out.split()).await?;
        write.flush().await?;
    }
    Ok(())
}

/// Both ends know each other's certificate, as nodes do.
struct Tls {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Tls {
    fn new() -> anyhow::Result<Self> {
        let certified = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
        let certificate = certified.cert.der().clone();
        let key = || PrivateKeyDer::Pkcs8(certified.signing_key.serialize_der().into());
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone())?;
        let roots = Arc::new(roots);
        let verifier =
            tokio_rustls::rustls::server::WebPkiClientVerifier::builder(Arc::clone(&roots))
                .build()?;
        let server = ServerConfig::builder()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate.clone()], key())?;
        let client = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate], key())?;
        Ok(Self {
            server: Arc::new(server),
            client: Arc::new(client),
        })
    }
}

//! Connections to the peer: one for each link, made again whenever it ends.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kine2_proto::kine2::{LinkEcho, Purpose};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tracing::{debug, info};

use crate::Stream;
use crate::framing::MessageReader;
use crate::greeting::{GREETING_BYTES_MAX, GreetingError};
use crate::net::{Line, Net};

/// Longest time to make a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Pauses between attempts: the first comes at once, then they double.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(400);
/// A connection on which nothing sent was acknowledged for so long is ended.
const UNACKED_TIMEOUT_MS: u32 = 5_000;

/// Keeps a connection on this link.
pub(crate) async fn keep_link(net: Arc<Net>, line: Arc<Line>) {
    let address = &line.address;
    let mut pause = Duration::ZERO;
    let mut told = String::new();
    loop {
        tokio::time::sleep(pause).await;
        match connect(&net, address, Purpose::Frames).await {
            Ok(reader) => {
                pause = Duration::ZERO;
                told.clear();
                info!(address, "connected to the peer");
                // What waited for the connection before is of no use any more.
                line.queue.clear();
                net.on_up(&line);
                match run(&net, &line, reader).await {
                    Ok(()) => info!(address, "the connection to the peer ended"),
                    Err(error) => info!(address, %error, "the connection to the peer ended"),
                }
                net.on_down(&line);
            }
            Err(error) => {
                pause = (pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
                let text = error.to_string();
                if text == told {
                    debug!(address, error = text, "not connected to the peer");
                } else {
                    info!(address, error = text, "not connected to the peer");
                    told = text;
                }
                net.on_failed(&line, error.is_refused());
            }
        }
    }
}

/// Makes a connection to the peer and greets.
pub(crate) async fn connect(
    net: &Net,
    address: &str,
    purpose: Purpose,
) -> Result<MessageReader<Stream>, GreetingError> {
    let connecting = async {
        let stream = open(address).await?;
        let (stream, owner) = kine2_trust::connect(&net.trust, stream).await?;
        if owner.node.name == net.me.node.name {
            return Err(GreetingError::OwnName(owner.node));
        }
        net.me.greet(Stream::from(stream), purpose).await
    };
    match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(connected) => connected,
        Err(_elapsed) => Err(GreetingError::Late),
    }
}

/// Connects to the first of the addresses that the name stands for.
async fn open(address: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host(address).await?.collect();
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                tune(&stream)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Sends at once, and notices a peer that does not answer.
pub(crate) fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    rustix::net::sockopt::set_socket_keepalive(stream, true)?;
    rustix::net::sockopt::set_tcp_keepidle(stream, Duration::from_secs(2))?;
    rustix::net::sockopt::set_tcp_keepintvl(stream, Duration::from_secs(1))?;
    rustix::net::sockopt::set_tcp_keepcnt(stream, 3)?;
    rustix::net::sockopt::set_tcp_user_timeout(stream, UNACKED_TIMEOUT_MS)?;
    Ok(())
}

/// Writes what waits, and takes in what the peer answers, until the connection ends.
async fn run(net: &Net, line: &Line, reader: MessageReader<Stream>) -> Result<(), GreetingError> {
    let (stream, rest) = reader.into_parts();
    debug_assert!(rest.is_empty(), "the peer says nothing before a heartbeat");
    let (read, mut write) = tokio::io::split(stream);
    let mut echoes = MessageReader::new(read, GREETING_BYTES_MAX);
    let writing = async {
        loop {
            let bytes = line.queue.take().await;
            net.stats.sent(bytes.len());
            write.write_all(&bytes).await?;
            write.flush().await?;
        }
    };
    let reading = async {
        while let Some(LinkEcho { .. }) = echoes.next().await? {
            net.on_answer(line);
        }
        Ok(())
    };
    tokio::select! {
        ended = writing => ended,
        ended = reading => ended,
    }
}

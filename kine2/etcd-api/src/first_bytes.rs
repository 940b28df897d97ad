//! What a client says first, awaited no longer than a while.
//!
//! The HTTP library waits for the first bytes without end, and a client that says nothing would
//! keep its descriptor for ever.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

/// A client that has not said by then which HTTP it speaks is hung up on.
pub(crate) const FIRST_BYTES_TIMEOUT: Duration = Duration::from_secs(10);
/// What a client of HTTP/2 says first (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes that are read at once.
const READ_BYTES: usize = 512;

/// Reads until it is certain which version of HTTP the client speaks: all of HTTP/2's preface, or
/// anything else. What comes after has its own time limits.
///
/// # Errors
/// If the client goes away or takes too long.
pub(crate) async fn hear(io: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    match timeout(FIRST_BYTES_TIMEOUT, read_first(io)).await {
        Ok(result) => result,
        Err(_elapsed) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client does not say which HTTP it speaks",
        )),
    }
}

async fn read_first(io: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut first = Vec::with_capacity(READ_BYTES);
    while first.len() < PREFACE.len() && PREFACE.starts_with(&first) {
        if io.read_buf(&mut first).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::time::{Instant, sleep};

    #[tokio::test(start_paused = true)]
    async fn the_version_is_known_by_its_first_bytes_or_the_time_is_up() {
        let whole = [PREFACE, b"\0\0\0\x04"].concat();
        type Pieces<'a> = &'a [&'a [u8]];
        // What comes in which pieces, and what is heard.
        let cases: [(Pieces<'_>, Option<&[u8]>); 6] = [
            (&[b"G"], Some(b"G")),
            (&[b"P", b"OST / HTTP/1.1\r\n"], Some(b"POST / HTTP/1.1\r\n")),
            (&[b"PRI * HTTP", &PREFACE[10..]], Some(PREFACE)),
            (&[&whole], Some(&whole)),
            (&[], None),
            (&[b"PRI * HTTP/2.0\r\n"], None),
        ];
        for (pieces, heard) in cases {
            let (mut client, mut server) = tokio::io::duplex(64);
            let begun = Instant::now();
            let says = async {
                for piece in pieces {
                    client.write_all(piece).await.unwrap();
                    sleep(Duration::from_secs(1)).await;
                }
                // Silent from here on, but there.
                std::future::pending::<()>().await;
            };
            let hears = async { hear(&mut server).await };
            tokio::select! {
                () = says => unreachable!(),
                first = hears => match heard {
                    Some(heard) => assert_eq!(first.unwrap(), heard),
                    None => {
                        assert_eq!(first.unwrap_err().kind(), io::ErrorKind::TimedOut);
                        assert!(begun.elapsed() >= FIRST_BYTES_TIMEOUT);
                    }
                },
            }
        }
    }
}

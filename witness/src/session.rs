//! One node's session: its connection between the node and the loop.

use std::io;
use std::time::Instant;

use bytes::Bytes;
use kine2_trust::Refusal;
use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout};
use tokio_rustls::server::TlsStream;

use crate::limits::{SILENCE_MAX, WRITE_MAX};
use crate::messages::{self, MessageError, MessageReader, Said};
use crate::service::{Input, SessionId};

/// How a session ended.
#[derive(Debug, Error)]
pub(crate) enum End {
    #[error("the node closed it")]
    Closed,
    #[error("nothing was heard for {} s", SILENCE_MAX.as_secs())]
    Silent,
    #[error("the node took nothing for {} s", WRITE_MAX.as_secs())]
    Stuck,
    #[error("another session of the node takes its place, or it left too much unread")]
    Replaced,
    #[error(transparent)]
    Message(#[from] MessageError),
    #[error("the witness stops")]
    Stopped,
}

enum Happened {
    Read(Result<Option<Bytes>, MessageError>),
    Word(Option<Bytes>),
    Silence,
}

/// Carries messages both ways until the session ends, by whichever side.
pub(crate) async fn carry(
    mut stream: TlsStream<TcpStream>,
    mut reader: MessageReader,
    session: SessionId,
    inputs: &mpsc::Sender<Input>,
    mut words: mpsc::Receiver<Bytes>,
) -> End {
    let mut heard = Instant::now();
    loop {
        let silent = (heard + SILENCE_MAX).into();
        let happened = tokio::select! {
            read = reader.next(&mut stream) => Happened::Read(read),
            word = words.recv() => Happened::Word(word),
            () = sleep_until(silent) => Happened::Silence,
        };
        let done = match happened {
            Happened::Read(Ok(Some(message))) => {
                heard = Instant::now();
                match Said::read(message) {
                    Ok(Said::KeepAlive(number)) => {
                        send(&mut stream, &messages::keep_alive(number)).await
                    }
                    Ok(Said::Call(call)) => {
                        let input = Input::Call(session, Box::new(call));
                        inputs.send(input).await.map_err(|_| End::Stopped)
                    }
                    Err(error) => {
                        let _ = send(&mut stream, &messages::bye(&error.to_string())).await;
                        Err(error.into())
                    }
                }
            }
            Happened::Read(Ok(None)) => Err(End::Closed),
            // A node that is killed takes no leave of TLS.
            Happened::Read(Err(MessageError::Io(error)))
                if error.kind() == io::ErrorKind::UnexpectedEof =>
            {
                Err(End::Closed)
            }
            Happened::Read(Err(error)) => Err(error.into()),
            Happened::Word(Some(word)) => send(&mut stream, &word).await,
            Happened::Word(None) => Err(End::Replaced),
            Happened::Silence => Err(End::Silent),
        };
        if let Err(end) = done {
            // Who is there still is told; who is not is not waited for.
            let _ = timeout(WRITE_MAX, stream.shutdown()).await;
            return end;
        }
    }
}

/// Sends a message whole.
pub(crate) async fn send(stream: &mut TlsStream<TcpStream>, message: &[u8]) -> Result<(), End> {
    let write = async {
        stream.write_all(message).await?;
        stream.flush().await
    };
    match timeout(WRITE_MAX, write).await {
        Ok(written) => written.map_err(|error: io::Error| End::Message(error.into())),
        Err(_) => Err(End::Stuck),
    }
}

impl End {
    /// What the connection was refused for, if that shows only now: in TLS 1.3 the node learns of
    /// the witness's certificate last.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Message(MessageError::Io(error)) => match Refusal::of_io(error) {
                Refusal::Connection(_) => None,
                refusal => Some(refusal),
            },
            _ => None,
        }
    }
}

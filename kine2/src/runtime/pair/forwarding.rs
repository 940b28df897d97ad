//! Requests that the other node's clients have for this one, the primary.

use std::sync::Arc;

use bytes::BytesMut;
use kine2_peer::Stream;
use kine2_peer::framing::{MESSAGE_BYTES_MAX, MessageReader, put};
use kine2_peer::wire::{answer_to_wire, request_from_wire};
use tokio::io::AsyncWriteExt;
use tokio::sync::{Semaphore, mpsc};
use tracing::debug;

use crate::runtime::member::NodeMember;

/// Requests of one connection that are carried out at a time; more wait.
const REQUESTS_MAX: usize = 1024;
/// Bytes of answers that are written at once.
const WRITE_BYTES: usize = 256 << 10;

/// Answers what comes, until the connection ends.
pub(super) async fn serve(reader: MessageReader<Stream>, member: NodeMember) {
    if let Err(error) = run(reader, member).await {
        debug!(
            error = format!("{error:#}"),
            "a connection for requests ended"
        );
    }
}

async fn run(reader: MessageReader<Stream>, member: NodeMember) -> anyhow::Result<()> {
    let (stream, rest) = reader.into_parts();
    let (read, mut write) = tokio::io::split(stream);
    let mut reader = MessageReader::with_rest(read, rest, MESSAGE_BYTES_MAX);
    let (answers, mut answered) = mpsc::channel(REQUESTS_MAX);
    let reading = async {
        let room = Arc::new(Semaphore::new(REQUESTS_MAX));
        while let Some(wire) = reader.next().await? {
            let (number, request) = request_from_wire(wire)?;
            let permit = Arc::clone(&room).acquire_owned().await?;
            let (member, answers) = (member.clone(), answers.clone());
            tokio::spawn(async move {
                let answer = member.carry_out(request).await;
                let _ = answers.send(answer_to_wire(number, &answer)).await;
                drop(permit);
            });
        }
        anyhow::Ok(())
    };
    let writing = async {
        let mut out = BytesMut::new();
        while let Some(answer) = answered.recv().await {
            put(&mut out, &answer);
            while out.len() < WRITE_BYTES {
                let Ok(answer) = answered.try_recv() else {
                    break;
                };
                put(&mut out, &answer);
            }
            write.write_all_buf(&mut out).await?;
            write.flush().await?;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        ended = reading => ended,
        ended = writing => ended,
    }
}

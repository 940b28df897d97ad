//! Writes of a connection, gathered until it has nothing more to say for now.
//!
//! The HTTP/2 library hands the end of an answer to the system apart from its data: two calls and
//! two packets for each answer, and two wake-ups of the client. Here what is written while the
//! connection is polled once goes out in one piece.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are gathered at most before they are written.
const GATHERED_BYTES_MAX: usize = 64 << 10;
/// A buffer of this size is kept between two answers, a larger one is given back.
const KEPT_BYTES: usize = 4 << 10;

/// A connection for the HTTP library on one side, and for whoever polls the library on the other:
/// the latter calls [`poll_write_out`](Self::poll_write_out) after each poll.
#[derive(Debug)]
pub(crate) struct GatheredIo<S>(Arc<Mutex<Gathered<S>>>);

#[derive(Debug)]
struct Gathered<S> {
    io: S,
    /// Bytes that were read ahead and are to be given out first.
    first: Bytes,
    waiting: Vec<u8>,
    /// Bytes at the front of `waiting` that are written already.
    written: usize,
    /// The stream below has bytes of ours that it has not passed on.
    unflushed: bool,
}

impl<S> Clone for GatheredIo<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: AsyncWrite + Unpin> GatheredIo<S> {
    /// `first` was read from `io` already.
    pub(crate) fn new(io: S, first: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Gathered {
            io,
            first: first.into(),
            waiting: Vec::new(),
            written: 0,
            unflushed: false,
        })))
    }

    /// Writes what was gathered.
    pub(crate) fn poll_write_out(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().poll_write_out(context)
    }
}

impl<S: AsyncWrite + Unpin> Gathered<S> {
    fn poll_write_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.waiting.len() {
            let rest = &self.waiting[self.written..];
            let count = ready!(Pin::new(&mut self.io).poll_write(context, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
        }
        if self.waiting.capacity() > KEPT_BYTES {
            self.waiting = Vec::new();
        } else {
            self.waiting.clear();
        }
        self.written = 0;
        if self.unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(context))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_gather(
        &mut self,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes: usize = slices.iter().map(|slice| slice.len()).sum();
        if !self.waiting.is_empty() && self.waiting.len() + bytes > GATHERED_BYTES_MAX {
            ready!(self.poll_write_out(context))?;
        }
        self.unflushed = true;
        if bytes > GATHERED_BYTES_MAX {
            return Pin::new(&mut self.io).poll_write_vectored(context, slices);
        }
        if self.waiting.len() + bytes > KEPT_BYTES {
            // One more is likely to follow.
            self.waiting
                .reserve_exact(GATHERED_BYTES_MAX - self.waiting.len());
        }
        for slice in slices {
            self.waiting.extend_from_slice(slice);
        }
        Poll::Ready(Ok(bytes))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for GatheredIo<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut gathered = self.0.lock();
        if gathered.first.is_empty() {
            return Pin::new(&mut gathered.io).poll_read(context, buffer);
        }
        let count = gathered.first.len().min(buffer.remaining());
        buffer.put_slice(&gathered.first.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for GatheredIo<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0
            .lock()
            .poll_gather(context, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.lock().poll_gather(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Put off until the end of the poll.
    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathered = self.0.lock();
        ready!(gathered.poll_write_out(context))?;
        Pin::new(&mut gathered.io).poll_shutdown(context)
    }
}

//! A client's stream whose writes must get on.
//!
//! Owns the deadline of a write: a client that takes nothing for so long is gone. What is read has deadlines elsewhere.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::connections::Connection;
use super::limits::Tally;
use super::routes::Memory;

/// How long a client may take nothing of what it is sent.
const WRITE: Duration = Duration::from_secs(30);

/// A stream, and what is known of its client.
pub(super) struct Guarded<S> {
    inner: S,
    connection: Arc<Connection>,
    memory: Arc<Memory>,
    begun: Instant,
    /// Something came since the last answer.
    pub heard: Arc<AtomicBool>,
    stuck: Option<Pin<Box<Sleep>>>,
}

impl<S> Guarded<S> {
    /// `begun`: where the connection's milliseconds count from.
    pub fn new(inner: S, connection: Arc<Connection>, memory: Arc<Memory>, begun: Instant) -> Guarded<S> {
        Guarded { inner, connection, memory, begun, heard: Arc::default(), stuck: None }
    }

    fn tally(&self) -> &Tally {
        &self.memory.tally
    }

    /// What became of a write.
    fn written<T>(&mut self, context: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.stuck = None;
            self.connection.touch(self.begun.elapsed().as_millis() as u64);
            return result;
        }
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(sleep(WRITE)));
        if stuck.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        self.tally().timeouts.add();
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.inner).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.heard.store(true, Ordering::Relaxed);
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.written(context, result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_flush(context);
        self.written(context, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_shutdown(context);
        self.written(context, result)
    }
}

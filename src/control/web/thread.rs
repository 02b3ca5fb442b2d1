//! The thread of the web listener: it lets clients in, bounded in number and time.
//!
//! Owns the listeners and the connections. Never decides what a path means.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crossbeam::channel::Sender;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::runtime;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::routes::{self, Memory, Site};
use super::{Asked, Told, Wake};

/// Most connections at once.
const MOST_CONNECTIONS: usize = 256;

/// How long a client may take for the head of a request.
const HEAD: Duration = Duration::from_secs(10);

/// Starts the thread.
///
/// # Errors
/// The kernel gives no thread, or no poll.
pub(super) fn start(asks: Sender<Asked>, wake: Wake) -> io::Result<(mpsc::UnboundedSender<Told>, JoinHandle<()>)> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let runtime = runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let handle = Builder::new().name("web".into()).spawn(move || runtime.block_on(serve(receiver, asks, wake)))?;
    Ok((sender, handle))
}

/// Serves until the loop hangs up.
async fn serve(mut told: mpsc::UnboundedReceiver<Told>, asks: Sender<Asked>, wake: Wake) {
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let memory = Arc::new(Memory::default());
    let mut listening = JoinSet::new();
    while let Some(told) = told.recv().await {
        // The old listeners are closed before the new ones serve; connections of before end with them.
        listening.shutdown().await;
        let Told::Serve(listeners, web) = told else { continue };
        let site = Arc::new(Site::new(web, asks.clone(), Arc::clone(&wake), Arc::clone(&memory)));
        for listener in listeners {
            listening.spawn(accept(listener, Arc::clone(&site), Arc::clone(&room)));
        }
    }
}

async fn accept(listener: TcpListener, site: Arc<Site>, room: Arc<Semaphore>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        let (stream, from) = match listener.accept().await {
            Ok((stream, from)) => (stream, from.ip()),
            // No descriptors left, for one.
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let site = Arc::clone(&site);
        connections.spawn(async move {
            let answer = service_fn(|request| {
                let site = Arc::clone(&site);
                async move { Ok::<_, Infallible>(routes::answer(&site, from, request).await) }
            });
            // What goes wrong here is the client's affair.
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .serve_connection(TokioIo::new(stream), answer)
                .await;
            drop(place);
        });
        while connections.try_join_next().is_some() {}
    }
}

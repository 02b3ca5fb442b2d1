//! The thread of the web listener: it opens what is configured and lets clients in, bounded in number and time.
//!
//! Owns the listeners and the connections. Never decides what a path means. An address that cannot be had is tried again; a new
//! configuration reaches clients with their next request.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use crossbeam::channel::Sender;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::resource::{Resource, getrlimit};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, sleep_until, timeout};
use tokio::{runtime, select, task};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{info, warn};

use super::auth::lock;
use super::connections::{Connection, Connections};
use super::routes::{self, Memory, Site};
use super::stream::Guarded;
use super::{Asked, Wake, limits, tls};
use crate::model;
use crate::priority;

/// Most connections at once, where the process may have four times as many files open.
const MOST_CONNECTIONS: usize = 1024;

/// How long a client may take for the head of a request, and be silent between two.
const HEAD: Duration = Duration::from_secs(20);

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Longest head of a request, bytes; also how much of an answer waits in memory for a client.
const MOST_HEAD: usize = 32 << 10;

/// Requests of a connection; then its client may make a new one.
const MOST_REQUESTS: u32 = 1000;

/// How long what is being answered may take when its listener is closed.
const LAST: Duration = Duration::from_secs(15);

/// How long after a failure the listeners are tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// Everything else on the machine comes before those who look.
const NICE: i8 = 10;

/// What is to be served from now on; `None`: nothing.
pub(super) type Wanted = Option<Arc<model::Web>>;

/// Starts the thread.
///
/// # Errors
/// The kernel gives no thread, or no poll.
pub(super) fn start(
    asks: Sender<Asked>,
    wake: Wake,
    memory: Arc<Memory>,
) -> io::Result<(mpsc::UnboundedSender<Wanted>, JoinHandle<()>)> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let runtime = runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .thread_name("web-password")
        .max_blocking_threads(1)
        .build()?;
    let handle = Builder::new().name("web".into()).spawn(move || {
        // Threads of this one, which look at passwords, inherit it. Where it fails, they are as all others.
        let _ = priority::set_nice(NICE);
        runtime.block_on(serve(receiver, asks, wake, memory));
        // Nobody waits for a password that is being looked at.
        runtime.shutdown_background();
    })?;
    Ok((sender, handle))
}

/// What connections need.
struct State {
    live: ArcSwapOption<Live>,
    connections: Mutex<Connections>,
    memory: Arc<Memory>,
    begun: Instant,
}

impl State {
    /// Milliseconds since the thread began.
    fn now(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }
}

/// The configuration in force.
struct Live {
    site: Arc<Site>,
    tls: Option<TlsAcceptor>,
}

/// A listener that is open. Dropping it ends its connections when what they ask is answered.
struct Listening {
    accepting: task::JoinHandle<()>,
    _close: watch::Sender<()>,
}

/// Serves until the loop hangs up.
async fn serve(mut told: mpsc::UnboundedReceiver<Wanted>, asks: Sender<Asked>, wake: Wake, memory: Arc<Memory>) {
    let most = getrlimit(Resource::RLIMIT_NOFILE).map_or(64, |(soft, _)| soft / 4);
    let most = usize::try_from(most).unwrap_or(MOST_CONNECTIONS).clamp(16, MOST_CONNECTIONS);
    let state = Arc::new(State {
        live: ArcSwapOption::empty(),
        connections: Mutex::new(Connections::new(most)),
        memory: Arc::clone(&memory),
        begun: Instant::now(),
    });
    let mut open: BTreeMap<SocketAddr, Listening> = BTreeMap::new();
    let mut wanted: Wanted = None;
    let mut again = None;
    loop {
        select! {
            next = told.recv() => match next {
                Some(next) => {
                    if let Some(web) = &next {
                        let site = Site::new(web, asks.clone(), Arc::clone(&wake), Arc::clone(&memory));
                        take(&state, &mut open, web, site).await;
                    } else {
                        state.live.store(None);
                        close(&mut open, |_| true).await;
                        info!("web: nothing is served any more");
                    }
                    wanted = next;
                }
                None => return,
            },
            () = sleep_until(again.unwrap_or_else(tokio::time::Instant::now)), if again.is_some() => {}
        }
        let before = lock(&memory.trouble).clone();
        let trouble = match &wanted {
            Some(web) if state.live.load().is_some() => listen_all(&state, &mut open, web),
            Some(_) => before.clone(),
            None => None,
        };
        again = trouble.as_ref().map(|_| tokio::time::Instant::now() + AGAIN);
        match &trouble {
            Some(why) if before != trouble => warn!("web: {why}; tried again every {} s", AGAIN.as_secs()),
            None if before.is_some() && wanted.is_some() => info!("web: all addresses are listened on"),
            _ => {}
        }
        *lock(&memory.trouble) = trouble;
    }
}

/// Puts a configuration into force, and closes what it does not have.
async fn take(state: &State, open: &mut BTreeMap<SocketAddr, Listening>, web: &model::Web, site: Site) {
    let acceptor = match web.tls.as_ref().map(|files| tls::server(&files.chain, &files.secret)).transpose() {
        Ok(config) => config.map(TlsAcceptor::from),
        Err(tls::Fault::Certificate(why) | tls::Fault::Key(why)) => {
            // `check` refuses it.
            warn!("web: no TLS: {why}; nothing is served");
            *lock(&state.memory.trouble) = Some(format!("no TLS: {why}"));
            state.live.store(None);
            return close(open, |_| true).await;
        }
    };
    let spoke = state.live.load().as_ref().map(|live| live.tls.is_some());
    let changed = spoke.is_some_and(|tls| tls != acceptor.is_some());
    state.live.store(Some(Arc::new(Live { site: Arc::new(site), tls: acceptor })));
    let addresses: BTreeSet<SocketAddr> = addresses(web).collect();
    close(open, |address| changed || !addresses.contains(address)).await;
    info!("web: {}", super::address_line(web));
}

/// Closes listeners; their addresses are free when it returns.
async fn close(open: &mut BTreeMap<SocketAddr, Listening>, which: impl Fn(&SocketAddr) -> bool) {
    let gone: Vec<SocketAddr> = open.keys().filter(|address| which(address)).copied().collect();
    for listening in gone.iter().filter_map(|address| open.remove(address)) {
        listening.accepting.abort();
        let _ = listening.accepting.await;
    }
}

fn addresses(web: &model::Web) -> impl Iterator<Item = SocketAddr> {
    web.listen.iter().map(|address| SocketAddr::new(*address, web.port))
}

/// Listens where that is not done yet. Why it cannot be, if so.
fn listen_all(state: &Arc<State>, open: &mut BTreeMap<SocketAddr, Listening>, web: &model::Web) -> Option<String> {
    let mut trouble = Vec::new();
    for address in addresses(web) {
        if open.contains_key(&address) {
            continue;
        }
        match listen(address) {
            Ok(listener) => {
                let (sender, receiver) = watch::channel(());
                let accepting = task::spawn(accept(listener, Arc::clone(state), receiver));
                open.insert(address, Listening { accepting, _close: sender });
            }
            Err(error) => trouble.push(format!("cannot listen on {address}: {error}")),
        }
    }
    (!trouble.is_empty()).then(|| trouble.join("; "))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    TcpListener::from_std(socket.into())
}

async fn accept(listener: TcpListener, state: Arc<State>, close: watch::Receiver<()>) {
    loop {
        let (stream, from) = match listener.accept().await {
            Ok((stream, from)) => (stream, from.ip()),
            // No descriptors left, for one.
            Err(_) => {
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let tally = &state.memory.tally;
        let admitted = lock(&state.connections).admit(limits::network(from), state.now());
        let Some((id, connection, made_room)) = admitted else {
            tally.refused_busy.add();
            refuse(stream, state.live.load().as_ref().is_some_and(|live| live.tls.is_some()));
            continue;
        };
        tally.accepted.add();
        if made_room {
            tally.gave_way.add();
        }
        let place = Place::new(Arc::clone(&state), id);
        let (state, close) = (Arc::clone(&state), close.clone());
        task::spawn(async move {
            let _place = place;
            select! {
                () = connection.end.notified() => {}
                () = talk(&state, stream, from, &connection, close) => {}
            }
        });
    }
}

/// Tells a client that there is no place, where that takes no time.
fn refuse(stream: TcpStream, speaks_tls: bool) {
    if !speaks_tls {
        let _ = stream.try_write(
            b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        );
    }
}

/// A connection's place; dropping it gives it back.
struct Place {
    state: Arc<State>,
    id: u64,
}

impl Place {
    fn new(state: Arc<State>, id: u64) -> Place {
        state.memory.tally.connections.fetch_add(1, Ordering::Relaxed);
        Place { state, id }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.state.memory.tally.connections.fetch_sub(1, Ordering::Relaxed);
        lock(&self.state.connections).remove(self.id);
    }
}

/// Speaks with a client until one of both ends it.
async fn talk(
    state: &Arc<State>,
    stream: TcpStream,
    from: IpAddr,
    connection: &Arc<Connection>,
    close: watch::Receiver<()>,
) {
    // Answers are written whole.
    let _ = stream.set_nodelay(true);
    let Some(live) = state.live.load_full() else { return };
    match &live.tls {
        None => converse(state, stream, from, connection, close).await,
        Some(acceptor) => match timeout(HANDSHAKE, handshake(acceptor, stream)).await {
            Ok(Some(stream)) => converse(state, stream, from, connection, close).await,
            Ok(None) => state.memory.tally.failed_handshakes.add(),
            Err(_) => state.memory.tally.timeouts.add(),
        },
    }
}

/// The first byte of a TLS handshake.
const HELLO: u8 = 0x16;

async fn handshake(acceptor: &TlsAcceptor, mut stream: TcpStream) -> Option<TlsStream<TcpStream>> {
    let mut first = [0];
    if stream.peek(&mut first).await.ok()? == 1 && first[0].is_ascii_alphabetic() && first[0] != HELLO {
        let why = "this port speaks TLS: ask for https://\n";
        let head = format!("Content-Type: text/plain\r\nConnection: close\r\nContent-Length: {}", why.len());
        let answer = format!("HTTP/1.1 400 Bad Request\r\n{head}\r\n\r\n{why}");
        // What was sent is read, or closing would take the answer back.
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.shutdown().await;
        return None;
    }
    acceptor.accept(stream).await.ok()
}

/// Speaks with one client over any stream, as with those that come by a listener, until one of both ends it.
pub async fn speak<S>(stream: S, from: IpAddr, web: &model::Web, asks: Sender<Asked>, wake: Wake)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let memory = Arc::<Memory>::default();
    let site = Arc::new(Site::new(web, asks, wake, Arc::clone(&memory)));
    let mut connections = Connections::new(1);
    let Some((_, connection, _)) = connections.admit(from, 0) else { return };
    let state = Arc::new(State {
        live: ArcSwapOption::new(Some(Arc::new(Live { site, tls: None }))),
        connections: Mutex::new(connections),
        memory,
        begun: Instant::now(),
    });
    let (_open, close) = watch::channel(());
    converse(&state, stream, from, &connection, close).await;
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    state: &Arc<State>,
    stream: S,
    from: IpAddr,
    connection: &Arc<Connection>,
    mut close: watch::Receiver<()>,
) {
    let guarded = Guarded::new(stream, Arc::clone(connection), Arc::clone(&state.memory), state.begun);
    let heard = Arc::clone(&guarded.heard);
    let asked = AtomicU32::new(0);
    let answer = service_fn(|request| {
        heard.store(false, Ordering::Relaxed);
        let number = asked.fetch_add(1, Ordering::Relaxed) + 1;
        let (state, connection, last) = (Arc::clone(state), Arc::clone(connection), number >= MOST_REQUESTS);
        connection.work();
        async move {
            let mut response = match state.live.load_full() {
                Some(live) => routes::answer(&live.site, from, request).await,
                None => routes::text(hyper::StatusCode::SERVICE_UNAVAILABLE, "this listener ends\n"),
            };
            connection.wait(state.now());
            if last {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let conversation = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(MOST_HEAD)
        .serve_connection(TokioIo::new(guarded), answer);
    let mut conversation = pin!(conversation);
    let ended = select! {
        ended = conversation.as_mut() => ended,
        // Nothing is ever sent: it is closed.
        _ = close.changed() => {
            conversation.as_mut().graceful_shutdown();
            match timeout(LAST, conversation.as_mut()).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    // What goes wrong here is the client's affair; it is counted.
    if let Err(error) = ended {
        if error.is_parse() {
            state.memory.tally.bad_requests.add();
        } else if error.is_timeout() && heard.load(Ordering::Relaxed) {
            state.memory.tally.timeouts.add();
        }
    }
}

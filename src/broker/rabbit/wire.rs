//! The bytes between us and the server: a socket that can be cut from outside, and that remembers the greeting.
//!
//! The library keeps a connection's server properties to itself, and it waits for ever for a server that accepts a
//! connection and then says nothing. Both are settled here, below it.

use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures::io::{AsyncRead, AsyncWrite};
use futures::task::AtomicWaker;
use lapin::tcp::{AsyncTcpStream, OwnedTLSConfig};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;

/// Kept of what a server says first: `connection.start` with its properties is far smaller.
const MAX_GREETING_BYTES: usize = 16 * 1024;

/// Where a server is.
pub(super) struct Address<'a> {
    pub host: &'a str,
    pub port: u16,
    /// None: no TLS.
    pub tls: Option<&'a OwnedTLSConfig>,
}

/// Connects, and secures the connection where that is asked for.
///
/// # Errors
/// Nobody listens there, or who does is not trusted.
pub(super) async fn connect(address: Address<'_>) -> io::Result<Wire> {
    let tcp = TcpStream::connect((address.host, address.port)).await?;
    // Small frames go both ways all the time; waiting to fill a packet would delay every confirm.
    tcp.set_nodelay(true)?;
    let mut stream = AsyncTcpStream::Plain(Socket(tcp));
    if let Some(tls) = address.tls {
        stream = stream.into_tls(address.host, tls.as_ref()).await?;
    }
    Ok(Wire { stream, tap: Arc::default() })
}

/// What is known of a connection, and the way to end it.
#[derive(Default)]
pub(super) struct Tap {
    greeting: Mutex<Vec<u8>>,
    is_cut: AtomicBool,
    reader: AtomicWaker,
}

impl Tap {
    /// Ends the connection as a broken cable would.
    pub(super) fn cut(&self) {
        self.is_cut.store(true, SeqCst);
        self.reader.wake();
    }

    /// What the server said first.
    pub(super) fn greeting(&self) -> Vec<u8> {
        self.greeting.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn heard(&self, bytes: &[u8]) {
        let mut greeting = self.greeting.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let room = MAX_GREETING_BYTES - greeting.len();
        greeting.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

/// A connection with its tap.
pub(super) struct Wire {
    stream: AsyncTcpStream<Socket>,
    tap: Arc<Tap>,
}

impl Wire {
    pub(super) fn tap(&self) -> Arc<Tap> {
        self.tap.clone()
    }

    fn check(&self) -> io::Result<()> {
        if self.tap.is_cut.load(SeqCst) {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the connection was given up"));
        }
        Ok(())
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        // Registered before looking, or a cut in between is not heard of.
        self.tap.reader.register(cx.waker());
        self.check()?;
        let bytes = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.tap.heard(&buffer[..bytes]);
        Poll::Ready(Ok(bytes))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A peer that is gone does not answer a farewell: one that was cut is only dropped.
        if self.check().is_err() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

/// A TCP socket as the library reads and writes one.
pub(super) struct Socket(TcpStream);

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(Pin::new(&mut self.0).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// The runtime that the library runs on: tokio, with our sockets.
pub(super) type Kit = RuntimeParts<Tokio, Sockets>;

/// The runtime of the caller.
pub(super) fn runtime() -> Runtime<Kit> {
    let tokio = Tokio::current();
    Runtime::new(RuntimeParts::new(tokio.clone(), Sockets(tokio)))
}

/// Makes sockets; everything else is tokio's.
#[derive(Clone, Debug)]
pub(super) struct Sockets(Tokio);

impl Reactor for Sockets {
    type TcpStream = Wire;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H>(&self, socket: H) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static>
    where
        H: io::Read + io::Write + std::os::fd::AsFd + std::os::fd::AsRawFd + Send + 'static,
    {
        self.0.register(socket)
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, period: Duration) -> impl futures::Stream<Item = std::time::Instant> + Send + 'static {
        self.0.interval(period)
    }

    #[expect(clippy::manual_async_fn, reason = "an async function would hold on to the reactor")]
    fn tcp_connect_addr(&self, address: SocketAddr) -> impl Future<Output = io::Result<Wire>> + Send + 'static {
        async move {
            let host = address.ip().to_string();
            connect(Address { host: &host, port: address.port(), tls: None }).await
        }
    }
}

//! Connections: so many at once, none that is silent for long, and an orderly end.

use super::auth::Peer;
use crate::coordinator::settings::CoordinatorSettings;
use crate::shutdown::Stop;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// How long requests under way may go on after a request to stop.
const DRAIN: Duration = Duration::from_secs(10);
/// Largest head of a request, bytes.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Wait after the operating system would not give a connection: it has run out of something.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Answers until asked to stop; then lets requests under way end.
pub(in crate::coordinator) async fn serve(listener: TcpListener, router: Router, settings: CoordinatorSettings, mut stop: Stop) {
    let connections = Arc::new(Semaphore::new(settings.max_connections));
    let mut open = JoinSet::new();
    loop {
        let accepted = async {
            let permit = connections.clone().acquire_owned().await.expect("the semaphore is never closed");
            listener.accept().await.map(|(socket, peer)| (socket, peer, permit))
        };
        tokio::select! {
            biased;
            () = stop.requested() => break,
            Some(_) = open.join_next() => {}
            accepted = accepted => match accepted {
                Ok((socket, peer, permit)) => {
                    let (router, stop, header_timeout) = (router.clone(), stop.clone(), settings.header_timeout());
                    open.spawn(async move {
                        connection(socket, peer, router, header_timeout, stop).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
                }
            },
        }
    }
    drop(listener);
    let all = async { while open.join_next().await.is_some() {} };
    tokio::select! {
        () = stop.at_once() => {}
        ended = tokio::time::timeout(DRAIN, all) => if ended.is_err() { tracing::info!("requests under way were broken off") },
    }
}

async fn connection(socket: TcpStream, peer: SocketAddr, router: Router, header_timeout: Duration, mut stop: Stop) {
    let service = TowerToHyperService::new(router.layer(Extension(Peer(peer))));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(header_timeout).max_buf_size(MAX_HEAD_BYTES);
    let connection = http.serve_connection(TokioIo::new(socket), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.requested() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // A peer that went away or spoke something else; it is not there to be told.
        tracing::debug!(%peer, %error, "a connection ended");
    }
}

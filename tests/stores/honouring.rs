//! A second S3 server of a test's own: one that honours conditional writes, where Garage ignores them. It runs in this
//! process, in a folder, on a free loopback port.

use crate::common::proxy::Background;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;

pub const ACCESS_KEY: &str = "narrows-test";
pub const SECRET_KEY: &str = "a-test-key-of-nobody";

/// A running server; dropped, it is gone with its objects.
pub struct Honouring {
    _background: Background,
    folder: tempfile::TempDir,
    port: u16,
}

impl Honouring {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let files = s3s_fs::FileSystem::new(folder.path()).expect("the folder is there");
        let mut service = S3ServiceBuilder::new(files);
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let service = service.build();
        let background = Background::new();
        let (listener, port) = background.listen();
        background.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let service = service.clone();
                tokio::spawn(async move {
                    let connections = Builder::new(TokioExecutor::new());
                    // A connection that breaks is the client's to notice.
                    let _ = connections.serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        Self { _background: background, folder, port }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn create_bucket(&self, name: &str) {
        std::fs::create_dir_all(self.folder.path().join(name)).expect("a bucket is a folder");
    }
}

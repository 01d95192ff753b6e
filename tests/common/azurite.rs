//! An Azurite server of a test's own: the blob service of one storage account, in memory, on a free loopback port.

use super::http::{Client, percent_encoded};
use super::server::{Home, PATIENCE, Server, free_port, until};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::path::Path;
use std::process::Command;

pub const ACCOUNT: &str = "narrowstest";
/// Base64 of `a test key of nobody at all`.
pub const ACCOUNT_KEY: &str = "YSB0ZXN0IGtleSBvZiBub2JvZHkgYXQgYWxs";
/// Version of the rules by which a signature is made.
const SIGNED_VERSION: &str = "2020-12-06";
/// No test is still running then.
const EXPIRY: &str = "2099-01-01T00:00:00Z";
/// How often a start is tried: another process may have taken the port in between.
const STARTS: u32 = 3;

/// A running server; dropped, it is gone with its objects. All its methods block.
pub struct Azurite {
    // In this order they are dropped.
    _server: Server,
    port: u16,
    _home: Home,
}

impl Azurite {
    /// Starts a server that has one account and no container.
    #[track_caller]
    pub fn start() -> Self {
        let mut said = String::new();
        for _ in 0..STARTS {
            match Self::boot() {
                Ok(azurite) => return azurite,
                Err(why) => said = why,
            }
        }
        panic!("no Azurite server: {said}")
    }

    fn boot() -> Result<Self, String> {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/azurite/node_modules/azurite/dist/src/blob/main.js");
        assert!(program.is_file(), "Azurite is installed (make setup)");
        let (home, port) = (Home::new(), free_port());
        let mut command = Command::new("node");
        command.arg(program).args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string()]);
        command.args(["--inMemoryPersistence", "--silent"]).current_dir(home.path());
        command.env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{ACCOUNT_KEY}"));
        let mut server = Server::start(&home, "azurite", &mut command);
        let answers = || Client::new(port).get("/").is_ok();
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

    /// The account as clients reach it through a port: its name is in the path.
    pub fn endpoint_at(port: u16) -> String {
        format!("http://127.0.0.1:{port}/{ACCOUNT}")
    }

    /// Makes a container. What is in a public one anybody may read who knows its name.
    #[track_caller]
    pub fn create_container(&self, name: &str, public: bool) {
        let path = format!("/{ACCOUNT}/{name}?restype=container&{}", account_signature());
        let access = [("x-ms-blob-public-access", "blob")];
        let made = Client::new(self.port).call("PUT", &path, if public { &access } else { &[] }, &[]);
        let made = made.unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(made.status == 201, "{name}: {} {}", made.status, made.text());
    }
}

/// A signature for everything in one container, as an operator would make it: read, add, create, write, delete, list.
pub fn signature_of(container: &str) -> String {
    signature_by(ACCOUNT_KEY, container)
}

/// The same with a key of one's choice (Microsoft, "Create a service SAS").
pub fn signature_by(key: &str, container: &str) -> String {
    let (permissions, place) = ("racwdl", format!("/blob/{ACCOUNT}/{container}"));
    let words = [permissions, "", EXPIRY, &place, "", "", "https,http", SIGNED_VERSION, "c", "", "", "", "", "", "", ""];
    let fields = [("sp", permissions), ("se", EXPIRY), ("spr", "https,http"), ("sv", SIGNED_VERSION), ("sr", "c")];
    query(key, &words.join("\n"), &fields)
}

/// A signature for making containers (Microsoft, "Create an account SAS").
fn account_signature() -> String {
    let words = [ACCOUNT, "c", "b", "c", "", EXPIRY, "", "https,http", SIGNED_VERSION, "", ""];
    let fields = [("sp", "c"), ("ss", "b"), ("srt", "c"), ("se", EXPIRY), ("spr", "https,http"), ("sv", SIGNED_VERSION)];
    query(ACCOUNT_KEY, &words.join("\n"), &fields)
}

fn query(key: &str, words: &str, fields: &[(&str, &str)]) -> String {
    let key = BASE64_STANDARD.decode(key).expect("the key is base64");
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("any length will do");
    mac.update(words.as_bytes());
    let signature = BASE64_STANDARD.encode(mac.finalize().into_bytes());
    let fields = fields.iter().copied().chain([("sig", signature.as_str())]);
    fields.map(|(name, value)| format!("{name}={}", percent_encoded(value))).collect::<Vec<_>>().join("&")
}

//! A Garage server of a test's own: an S3 service of one node, in a folder, on loopback ports.

use super::http::{self, Client};
use super::server::{Home, PATIENCE, Server, free_port, until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Command;

const REGION: &str = "garage";
const ACCESS_KEY: &str = "GK0f1e2d3c4b5a69788796a5b4";
const SECRET_KEY: &str = "6e6172726f77732074657374206b6579206f66206e6f626f647920617420616c";
const ADMIN_TOKEN: &str = "narrows-test";
/// How often a start is tried: another process may have taken a port in between.
const STARTS: u32 = 3;

/// A running server; dropped, it is gone with its objects. All its methods block.
pub struct Garage {
    // In this order they are dropped.
    server: Option<Server>,
    ports: Ports,
    home: Home,
}

#[derive(Clone, Copy)]
struct Ports {
    s3: u16,
    admin: u16,
    rpc: u16,
}

impl Garage {
    /// Starts a server that has one key and no bucket.
    #[track_caller]
    pub fn start() -> Self {
        let mut said = String::new();
        for _ in 0..STARTS {
            let home = Home::new();
            let ports = Ports { s3: free_port(), admin: free_port(), rpc: free_port() };
            configure(&home, ports);
            let mut garage = Self { server: None, ports, home };
            match garage.boot() {
                Ok(()) => return garage,
                Err(why) => said = why,
            }
        }
        panic!("no Garage server: {said}")
    }

    fn boot(&mut self) -> Result<(), String> {
        let mut command = Command::new(program());
        command.arg("-c").arg(self.home.join("garage.toml"));
        // One node is the whole layout, and the key is made at the first start.
        command.args(["server", "--single-node", "--default-access-key"]).current_dir(self.home.path());
        command.env("GARAGE_DEFAULT_ACCESS_KEY", ACCESS_KEY).env("GARAGE_DEFAULT_SECRET_KEY", SECRET_KEY);
        command.env("RUST_LOG", "garage=warn");
        let mut server = Server::start(&self.home, "garage", &mut command);
        let is_up = || self.admin().get("/health").is_ok_and(|answer| answer.status == 200) && self.knows_the_key();
        let up = until(PATIENCE, || match server.ended() {
            Some(status) => Some(Err(format!("it ended, {status}"))),
            None => is_up().then_some(Ok(())),
        });
        let up = up.unwrap_or_else(|| Err(format!("not up within {PATIENCE:?}")));
        let result = up.map_err(|why| format!("{why}; it said:\n{}", server.log()));
        self.server = Some(server);
        result
    }

    fn knows_the_key(&self) -> bool {
        self.admin().get(&format!("/v2/GetKeyInfo?id={ACCESS_KEY}")).is_ok_and(|answer| answer.status == 200)
            && http::Client::new(self.ports.s3).get("/").is_ok()
    }

    fn admin(&self) -> Client {
        Client::new(self.ports.admin).with_header("authorization", &format!("Bearer {ADMIN_TOKEN}"))
    }

    /// For clients that are given one; buckets are in the path.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.s3)
    }

    pub fn port(&self) -> u16 {
        self.ports.s3
    }

    pub fn region(&self) -> &'static str {
        REGION
    }

    pub fn access_key(&self) -> &'static str {
        ACCESS_KEY
    }

    pub fn secret_key(&self) -> &'static str {
        SECRET_KEY
    }

    /// Makes a bucket that the key may do everything with.
    #[track_caller]
    pub fn create_bucket(&self, name: &str) {
        let made = self.ask("/v2/CreateBucket", &json!({ "globalAlias": name }));
        let permissions = json!({ "read": true, "write": true, "owner": true });
        let allowed = json!({ "bucketId": made["id"], "accessKeyId": ACCESS_KEY, "permissions": permissions });
        self.ask("/v2/AllowBucketKey", &allowed);
    }

    /// One more key, its id and secret; it may do nothing yet.
    #[track_caller]
    pub fn create_key(&self, name: &str) -> (String, String) {
        let made = self.ask("/v2/CreateKey", &json!({ "name": name }));
        let text = |field: &str| made[field].as_str().unwrap_or_else(|| panic!("no {field}: {made}")).to_string();
        (text("accessKeyId"), text("secretAccessKey"))
    }

    #[track_caller]
    fn ask(&self, path: &str, body: &Value) -> Value {
        let answer = self.admin().post(path, "application/json", body.to_string().as_bytes());
        let answer = answer.unwrap_or_else(|e| panic!("{path}: {e}"));
        assert!(answer.status == 200, "{path}: {} {}", answer.status, answer.text());
        serde_json::from_slice(&answer.body).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    /// SIGKILL; the objects stay.
    pub fn kill(&mut self) {
        drop(self.server.take());
    }

    /// Starts it again on its objects and its ports.
    #[track_caller]
    pub fn restart(&mut self) {
        self.kill();
        if let Err(why) = self.boot() {
            panic!("the Garage server does not start again: {why}");
        }
    }

    pub fn pause(&mut self) {
        self.server.as_mut().expect("the server runs").signal(Signal::SIGSTOP);
    }

    pub fn resume(&mut self) {
        self.server.as_mut().expect("the server runs").signal(Signal::SIGCONT);
    }
}

fn configure(home: &Home, ports: Ports) {
    let folder = home.path().display();
    let text = format!(
        r#"metadata_dir = "{folder}/meta"
data_dir = "{folder}/data"
db_engine = "sqlite"
replication_factor = 1
metadata_fsync = false
data_fsync = false
rpc_bind_addr = "127.0.0.1:{rpc}"
rpc_public_addr = "127.0.0.1:{rpc}"
rpc_secret = "{secret}"

[s3_api]
s3_region = "{REGION}"
api_bind_addr = "127.0.0.1:{s3}"
root_domain = ".s3.localhost"

[admin]
api_bind_addr = "127.0.0.1:{admin}"
admin_token = "{ADMIN_TOKEN}"
"#,
        secret = "5e".repeat(32),
        s3 = ports.s3,
        admin = ports.admin,
        rpc = ports.rpc,
    );
    let path = home.write("garage.toml", text);
    // It refuses secrets that everybody may read.
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&path, private).expect("the file is ours");
}

/// On the path, or where `cargo install` puts it.
#[track_caller]
fn program() -> PathBuf {
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo = cargo.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let folders = std::env::split_paths(&on_path).chain(cargo.map(|folder| folder.join("bin")));
    let found = folders.map(|folder| folder.join("garage")).find(|file| file.is_file());
    found.expect("Garage is installed (make setup)")
}

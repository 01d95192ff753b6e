//! Stores as a fleet has them: real S3 servers, one that ignores conditional writes (Garage) and one that honours them,
//! with faults in between; and sources on the web.

#[path = "../common/mod.rs"]
mod common;
mod contract;
mod cost;
mod honouring;
#[path = "../common/media.rs"]
mod media;
mod web;

use common::Garage;
use honouring::Honouring;
use narrows::store::{Stores, StoresConfig};
use std::path::Path;

/// A server that the contract is tried on.
pub struct Bench {
    server: Server,
    secrets: tempfile::TempDir,
}

enum Server {
    Garage(Garage),
    Honouring(Honouring),
}

/// How a configuration differs from one that works.
#[derive(Default)]
pub struct Changes<'a> {
    /// Where the server is reached, when not directly.
    port: Option<u16>,
    secret_key: Option<&'a str>,
    bucket: Option<&'a str>,
}

impl Bench {
    fn garage() -> Self {
        Self::new(Server::Garage(Garage::start()))
    }

    fn honouring() -> Self {
        Self::new(Server::Honouring(Honouring::start()))
    }

    fn new(server: Server) -> Self {
        let bench = Self { server, secrets: tempfile::tempdir().expect("a temporary folder can be made") };
        for bucket in ["work", "media", "foreign"] {
            match &bench.server {
                Server::Garage(server) => server.create_bucket(bucket),
                Server::Honouring(server) => server.create_bucket(bucket),
            }
        }
        bench
    }

    pub fn port(&self) -> u16 {
        match &self.server {
            Server::Garage(server) => server.port(),
            Server::Honouring(server) => server.port(),
        }
    }

    fn keys(&self) -> (&str, &str) {
        match &self.server {
            Server::Garage(server) => (server.access_key(), server.secret_key()),
            Server::Honouring(_) => (honouring::ACCESS_KEY, honouring::SECRET_KEY),
        }
    }

    /// The stores `work` and `media` of this server.
    pub fn stores(&self, changes: &Changes<'_>) -> Stores {
        let (id, secret) = self.keys();
        let file = self.secrets.path().join("secret");
        std::fs::write(&file, format!("{}\n", changes.secret_key.unwrap_or(secret))).expect("the folder is ours");
        let (port, id) = (changes.port.unwrap_or(self.port()), id.to_string());
        let store = |name: &str, bucket: &str| {
            format!(
                "[stores.{name}]\ntype = \"s3\"\nbucket = \"{bucket}\"\nregion = \"garage\"\n\
                 endpoint = \"http://127.0.0.1:{port}\"\naccess_key_id = {{ env = \"ID\" }}\n\
                 secret_access_key = {{ file = \"{}\" }}\ntimeout_s = 10\nio_timeout_s = 20\nretries = 3\n",
                file.display()
            )
        };
        let text = store("work", "work") + &store("media", changes.bucket.unwrap_or("media"));
        open(&text, &|name| (name == "ID").then(|| id.clone()))
    }
}

/// The stores of a configuration; the one called `work` holds the work.
pub fn open(text: &str, environment: &dyn Fn(&str) -> Option<String>) -> Stores {
    #[derive(serde::Deserialize)]
    struct File {
        stores: StoresConfig,
    }
    let file: File = toml::from_str(text).expect("the configuration is TOML");
    Stores::open(&file.stores, "work", environment).expect("the configuration is right")
}

/// Bytes that never repeat in a way that hides a mistake.
pub fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = Vec::with_capacity(bytes + 8);
    while noise.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend(state.to_le_bytes());
    }
    noise.truncate(bytes);
    noise
}

pub fn file_of(folder: &Path, content: &[u8]) -> std::path::PathBuf {
    let file = folder.join("upload");
    std::fs::write(&file, content).expect("the folder is ours");
    file
}

macro_rules! on_both_servers {
    ($($guarantee:ident),* $(,)?) => {
        mod on_a_server_that_ignores_conditional_writes {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $guarantee() {
                crate::contract::$guarantee(&crate::Bench::garage()).await;
            })*
        }
        mod on_a_server_that_honours_conditional_writes {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $guarantee() {
                crate::contract::$guarantee(&crate::Bench::honouring()).await;
            })*
        }
    };
}

on_both_servers!(
    objects_come_back_whole_and_are_replaced,
    an_upload_survives_every_way_in_which_one_request_can_fail,
    a_long_upload_whose_connection_breaks_is_begun_again_and_whole,
    a_store_that_is_gone_is_a_temporary_failure_and_leaves_what_was_there,
    a_source_is_read_by_ranges_and_a_change_of_it_is_noticed,
    more_objects_than_a_page_are_listed_in_order_and_deleted_by_folder,
    a_store_that_works_is_found_to_work_and_is_left_as_it_was,
    wrong_credentials_and_wrong_buckets_are_named_with_their_setting,
    no_other_bucket_is_reached,
);

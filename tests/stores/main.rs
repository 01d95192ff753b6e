//! Stores as a fleet has them, with faults in between: S3 servers, one that ignores conditional writes (Garage) and one that
//! honours them; Azure's blob service; as much of Google's as a server can be had for; and sources on the web.

mod cloud;
#[path = "../common/mod.rs"]
mod common;
mod contract;
mod cost;
mod honouring;
#[path = "../common/media.rs"]
mod media;
mod web;

use common::azurite::{self, Azurite};
use common::{FakeGcs, Garage};
use honouring::Honouring;
use narrows::store::{Stores, StoresConfig};
use std::path::Path;

/// Longest object for a server that takes none in pieces, bytes: it goes in one request, as all of those do.
const AT_ONCE: usize = 2 * 1024 * 1024;

/// A server that the contract is tried on.
pub struct Bench {
    server: Server,
    secrets: tempfile::TempDir,
}

enum Server {
    Garage(Garage),
    Honouring(Honouring),
    Azure(Azurite, AzureAccess),
    Google(FakeGcs),
}

/// How an Azure store is let in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AzureAccess {
    AccountKey,
    Signature,
}

/// How a configuration differs from one that works.
#[derive(Default)]
pub struct Changes<'a> {
    /// Where the server is reached, when not directly.
    port: Option<u16>,
    secret_key: Option<&'a str>,
    bucket: Option<&'a str>,
}

/// Which requests an upload consists of, by method.
pub struct Requests {
    of_a_short_one: &'static str,
    /// And how many of the same method come before.
    of_a_long_one: &'static [(&'static str, usize)],
}

impl Bench {
    fn garage() -> Self {
        Self::new(Server::Garage(Garage::start()))
    }

    fn honouring() -> Self {
        Self::new(Server::Honouring(Honouring::start()))
    }

    fn azure() -> Self {
        Self::new(Server::Azure(Azurite::start(), AzureAccess::AccountKey))
    }

    fn azure_by_signature() -> Self {
        Self::new(Server::Azure(Azurite::start(), AzureAccess::Signature))
    }

    fn google() -> Self {
        Self::new(Server::Google(FakeGcs::start()))
    }

    fn new(server: Server) -> Self {
        let bench = Self { server, secrets: tempfile::tempdir().expect("a temporary folder can be made") };
        for bucket in ["work", "media", "foreign"] {
            match &bench.server {
                Server::Garage(server) => server.create_bucket(bucket),
                Server::Honouring(server) => server.create_bucket(bucket),
                Server::Azure(server, _) => server.create_container(bucket, false),
                Server::Google(server) => server.create_bucket(bucket),
            }
        }
        bench
    }

    pub fn port(&self) -> u16 {
        match &self.server {
            Server::Garage(server) => server.port(),
            Server::Honouring(server) => server.port(),
            Server::Azure(server, _) => server.port(),
            Server::Google(server) => server.port(),
        }
    }

    /// The URI of a path that begins with a bucket.
    pub fn uri(&self, path: &str) -> String {
        match &self.server {
            Server::Garage(_) | Server::Honouring(_) => format!("s3://{path}"),
            Server::Azure(..) => format!("az://{path}"),
            Server::Google(_) => format!("gs://{path}"),
        }
    }

    /// So many bytes, or as many as this server takes of one object: Google's takes no pieces.
    pub fn longest(&self, bytes: usize) -> usize {
        match &self.server {
            Server::Google(_) => bytes.min(AT_ONCE),
            _ => bytes,
        }
    }

    /// Objects of one folder: more than one answer lists, where that is of interest.
    pub fn objects(&self) -> u64 {
        match &self.server {
            Server::Azure(_, AzureAccess::Signature) => 40,
            _ => 1_150,
        }
    }

    /// Of a long upload: the second piece; the beginning and the end of one in pieces; what is asked afterwards.
    pub fn requests(&self) -> Requests {
        match &self.server {
            Server::Garage(_) | Server::Honouring(_) => {
                Requests { of_a_short_one: "PUT", of_a_long_one: &[("PUT", 1), ("POST", 0), ("POST", 1), ("HEAD", 0)] }
            }
            // An upload in pieces needs no beginning.
            Server::Azure(..) => Requests { of_a_short_one: "PUT", of_a_long_one: &[("PUT", 1), ("PUT", 2), ("HEAD", 0)] },
            Server::Google(_) => Requests { of_a_short_one: "POST", of_a_long_one: &[("POST", 0), ("GET", 0), ("GET", 1)] },
        }
    }

    /// Does the server make a bucket of whatever is written to, as no service does?
    pub fn makes_buckets(&self) -> bool {
        matches!(self.server, Server::Honouring(_))
    }

    /// The settings that a store's place is in.
    pub fn place_settings(&self) -> &'static str {
        match &self.server {
            Server::Garage(_) | Server::Honouring(_) => "bucket, endpoint and region",
            Server::Azure(..) => "bucket, account and endpoint",
            Server::Google(_) => "bucket and endpoint",
        }
    }

    /// A secret in a file of its own.
    fn file(&self, name: &str, secret: &str) -> String {
        let file = self.secrets.path().join(name);
        std::fs::write(&file, format!("{secret}\n")).expect("the folder is ours");
        format!("{{ file = \"{}\" }}", file.display())
    }

    /// The settings of one of the server's buckets.
    fn settings(&self, bucket: &str, changes: &Changes<'_>) -> String {
        let port = changes.port.unwrap_or(self.port());
        let s3 = |id: &str, secret: &str| {
            let (id, secret) = (self.file("id", id), self.file("secret", changes.secret_key.unwrap_or(secret)));
            format!(
                "type = \"s3\"\nregion = \"garage\"\nendpoint = \"http://127.0.0.1:{port}\"\n\
                 access_key_id = {id}\nsecret_access_key = {secret}"
            )
        };
        match &self.server {
            Server::Garage(server) => s3(server.access_key(), server.secret_key()),
            Server::Honouring(_) => s3(honouring::ACCESS_KEY, honouring::SECRET_KEY),
            Server::Azure(_, access) => {
                let key = changes.secret_key.unwrap_or(azurite::ACCOUNT_KEY);
                let credentials = match access {
                    AzureAccess::AccountKey => format!("account_key = {}", self.file("key", key)),
                    AzureAccess::Signature => {
                        let signature = azurite::signature_by(key, bucket);
                        format!("sas_token = {}", self.file(&format!("signature-{bucket}"), &signature))
                    }
                };
                let (account, endpoint) = (azurite::ACCOUNT, Azurite::endpoint_at(port));
                format!("type = \"azblob\"\naccount = \"{account}\"\nendpoint = \"{endpoint}/\"\n{credentials}")
            }
            Server::Google(_) => format!("type = \"gcs\"\nendpoint = \"http://127.0.0.1:{port}/\"\nanonymous = true"),
        }
    }

    /// The stores `work` and `media` of this server.
    pub fn stores(&self, changes: &Changes<'_>) -> Stores {
        let store = |name: &str, bucket: &str| {
            let settings = self.settings(bucket, changes);
            format!("[stores.{name}]\nbucket = \"{bucket}\"\n{settings}\ntimeout_s = 10\nio_timeout_s = 20\nretries = 3\n")
        };
        open(&(store("work", "work") + &store("media", changes.bucket.unwrap_or("media"))), &|_| None)
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

/// The guarantees of the contract that are tried on one server.
macro_rules! on {
    ($place:ident, $bench:expr, [$($guarantee:ident),* $(,)?]) => {
        mod $place {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $guarantee() {
                crate::contract::$guarantee(&$bench).await;
            })*
        }
    };
}

/// All of them.
macro_rules! all_on {
    ($place:ident, $bench:expr) => {
        on!(
            $place,
            $bench,
            [
                objects_come_back_whole_and_are_replaced,
                an_upload_survives_every_way_in_which_one_request_can_fail,
                a_long_upload_whose_connection_breaks_is_begun_again_and_whole,
                a_store_that_is_gone_is_a_temporary_failure_and_leaves_what_was_there,
                a_source_is_read_by_ranges_and_a_change_of_it_is_noticed,
                more_objects_than_a_page_are_listed_in_order_and_deleted_by_folder,
                a_store_that_works_is_found_to_work_and_is_left_as_it_was,
                wrong_credentials_are_named_with_their_setting_and_not_shown,
                a_wrong_bucket_is_named_with_its_setting_and_never_taken_for_an_empty_one,
                no_other_bucket_is_reached,
            ]
        );
    };
}

all_on!(on_a_server_that_ignores_conditional_writes, crate::Bench::garage());
all_on!(on_a_server_that_honours_conditional_writes, crate::Bench::honouring());
all_on!(on_azure_by_account_key, crate::Bench::azure());

// What depends on how a request is signed.
on!(
    on_azure_by_shared_access_signature,
    crate::Bench::azure_by_signature(),
    [
        objects_come_back_whole_and_are_replaced,
        a_store_that_is_gone_is_a_temporary_failure_and_leaves_what_was_there,
        more_objects_than_a_page_are_listed_in_order_and_deleted_by_folder,
        wrong_credentials_are_named_with_their_setting_and_not_shown,
    ]
);

// What its server does: it takes no upload in pieces, and asks nobody who he is (see tests/common/fake_gcs.rs).
on!(
    on_google,
    crate::Bench::google(),
    [
        objects_come_back_whole_and_are_replaced,
        an_upload_survives_every_way_in_which_one_request_can_fail,
        a_store_that_is_gone_is_a_temporary_failure_and_leaves_what_was_there,
        a_source_is_read_by_ranges_and_a_change_of_it_is_noticed,
        more_objects_than_a_page_are_listed_in_order_and_deleted_by_folder,
        a_store_that_works_is_found_to_work_and_is_left_as_it_was,
        a_wrong_bucket_is_named_with_its_setting_and_never_taken_for_an_empty_one,
        no_other_bucket_is_reached,
    ]
);

//! A fleet of the real program: a RabbitMQ node, a Garage or an Azurite server, a receiver, workers and coordinators, each a
//! process, with proxies in between that can break what goes through them.

use crate::common::amqp_tap::Methods;
use crate::common::azurite::{self, Azurite};
use crate::common::http::{Client, Response};
use crate::common::{FaultProxy, Garage, Home, RabbitNode, Receiver, Server, StoreProxy, free_port, wait_for};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use opendal_http_transport_reqwest::ReqwestTransport;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_narrows");
/// Buckets: what the fleet keeps for itself, and what customers see.
pub const WORK: &str = "narrows-work";
pub const MEDIA: &str = "media";
/// Key of the callbacks: the base64 of 32 bytes.
pub const WEBHOOK_SECRET: &str = "whsec_bmFycm93cy10ZXN0LXdlYmhvb2stc2VjcmV0LTAwMQ==";

/// A customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tenant {
    pub name: &'static str,
    pub access_key_id: &'static str,
    pub secret: &'static str,
}

pub const ACME: Tenant = Tenant { name: "acme", access_key_id: "AKACME", secret: "a-secret-of-acme-0123456789" };
pub const OTHER: Tenant = Tenant { name: "other", access_key_id: "AKOTHER", secret: "a-secret-of-other-0123456789" };

/// What holds the work and the media.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buckets {
    /// A Garage server behind a proxy.
    Garage,
    /// An Azurite server behind a proxy.
    Azure,
}

/// The server of the buckets.
pub enum BucketServer {
    Garage(Garage),
    Azure(Azurite),
}

impl BucketServer {
    #[track_caller]
    fn start(buckets: Buckets) -> Self {
        let server = match buckets {
            Buckets::Garage => Self::Garage(Garage::start()),
            Buckets::Azure => Self::Azure(Azurite::start()),
        };
        for bucket in [WORK, MEDIA] {
            match &server {
                Self::Garage(server) => server.create_bucket(bucket),
                Self::Azure(server) => server.create_container(bucket, false),
            }
        }
        server
    }

    fn port(&self) -> u16 {
        match self {
            Self::Garage(server) => server.port(),
            Self::Azure(server) => server.port(),
        }
    }

    /// The settings of one of its buckets, reached through a port.
    fn settings(&self, home: &Home, bucket: &str, port: u16) -> Value {
        match self {
            Self::Garage(garage) => json!({
                "type": "s3", "bucket": bucket, "endpoint": format!("http://127.0.0.1:{port}"), "region": garage.region(),
                "access_key_id": { "file": home.write("access-key", garage.access_key()) },
                "secret_access_key": { "file": home.write("secret-key", garage.secret_key()) },
            }),
            Self::Azure(_) => json!({
                "type": "azblob", "bucket": bucket, "endpoint": Azurite::endpoint_at(port), "account": azurite::ACCOUNT,
                "account_key": { "file": home.write("account-key", azurite::ACCOUNT_KEY) },
            }),
        }
    }

    /// One of its buckets, reached directly.
    fn operator(&self, bucket: &str) -> opendal::Operator {
        let operator = match self {
            Self::Garage(garage) => {
                let s3 = opendal::services::S3::default().bucket(bucket).endpoint(&garage.endpoint()).region(garage.region());
                let s3 = s3.access_key_id(garage.access_key()).secret_access_key(garage.secret_key());
                opendal::Operator::new(s3)
            }
            Self::Azure(server) => {
                let azblob = opendal::services::Azblob::default().container(bucket);
                let azblob = azblob.endpoint(&Azurite::endpoint_at(server.port())).account_name(azurite::ACCOUNT);
                opendal::Operator::new(azblob.account_key(azurite::ACCOUNT_KEY))
            }
        };
        operator.expect("the bucket's address is right")
    }
}

/// How large a fleet is, and what is set beside the usual.
#[derive(Clone, Debug)]
pub struct Setup {
    pub seed: u64,
    pub workers: usize,
    pub coordinators: usize,
    pub slots: usize,
    pub buckets: Buckets,
    /// Fields over the usual ones, by dotted path.
    pub set: Vec<(&'static str, toml::Value)>,
}

impl Default for Setup {
    fn default() -> Self {
        Self { seed: 1, workers: 2, coordinators: 2, slots: 1, buckets: Buckets::Garage, set: Vec::new() }
    }
}

/// A running fleet. Dropped, it is gone.
pub struct Cluster {
    // In this order they are dropped.
    pub workers: Vec<Server>,
    pub coordinators: Vec<Server>,
    listens: Vec<u16>,
    /// Where workers answer whoever runs them.
    pages: Vec<u16>,
    pub config: PathBuf,
    pub amqp: FaultProxy,
    /// What passed through it.
    pub methods: Methods,
    /// In front of the buckets.
    pub store: StoreProxy,
    pub receiver: Receiver,
    pub rabbit: RabbitNode,
    pub bucket_server: BucketServer,
    pub home: Home,
}

impl Cluster {
    /// Starts everything and waits until the coordinators answer.
    #[track_caller]
    pub fn start(setup: &Setup) -> Self {
        let (rabbit, bucket_server) = std::thread::scope(|scope| {
            let server = scope.spawn(|| BucketServer::start(setup.buckets));
            (RabbitNode::start(), server.join().expect("the server of the buckets starts"))
        });
        let methods = Methods::default();
        let amqp = FaultProxy::with_taps(rabbit.port(), setup.seed, methods.taps());
        let store = StoreProxy::start(bucket_server.port(), setup.seed);
        let (receiver, home) = (Receiver::start(), Home::new());
        let settings = |bucket| bucket_server.settings(&home, bucket, store.port());
        let stores = json!({ "work": settings(WORK), "media": settings(MEDIA) });
        let config = configure(&home, setup, &rabbit.uri_at(amqp.port(), "guest", "guest", "/"), &stores);
        let listens = (0..setup.coordinators).map(|_| free_port()).collect();
        let pages = (0..setup.workers).map(|_| free_port()).collect();
        let (workers, coordinators) = (Vec::new(), Vec::new());
        let mut cluster =
            Self { workers, coordinators, listens, pages, config, amqp, methods, store, receiver, rabbit, bucket_server, home };
        for n in 0..setup.coordinators {
            let coordinator = cluster.coordinator(n);
            cluster.coordinators.push(coordinator);
        }
        for n in 0..setup.workers {
            let worker = cluster.worker(n);
            cluster.workers.push(worker);
        }
        for n in 0..setup.coordinators {
            wait_for("a coordinator that answers", || {
                let ended = cluster.coordinators[n].ended();
                assert!(ended.is_none(), "a coordinator ended, {ended:?}:\n{}", cluster.coordinators[n].log());
                cluster.http(n, ACME).get("/v1/jobs").ok().filter(|answer| answer.status == 200)
            });
        }
        cluster
    }

    fn role(&self, role: &str, n: usize) -> Command {
        let mut command = Command::new(PROGRAM);
        let temporary = self.home.join(&format!("{role}-{n}"));
        std::fs::create_dir_all(&temporary).expect("the home is ours");
        command.arg(role).arg("--config").arg(&self.config).env("TMPDIR", &temporary);
        command.env("NARROWS_SCRATCH__FOLDER", temporary.join("scratch"));
        command
    }

    /// Worker number `n`, started now.
    #[track_caller]
    pub fn worker(&self, n: usize) -> Server {
        let mut command = self.role("worker", n);
        command.env("NARROWS_WORKER__LISTEN", format!("127.0.0.1:{}", self.pages[n]));
        Server::start(&self.home, &format!("worker-{n}"), &mut command)
    }

    /// One more worker, with settings of its own by the environment, and its pages on a port.
    #[track_caller]
    pub fn worker_with(&self, n: usize, page: u16, environment: &[(&str, String)]) -> Server {
        let mut command = self.role("worker", n);
        command.env("NARROWS_WORKER__LISTEN", format!("127.0.0.1:{page}")).envs(environment.iter().cloned());
        Server::start(&self.home, &format!("worker-{n}"), &mut command)
    }

    /// Coordinator number `n`, started now.
    #[track_caller]
    pub fn coordinator(&self, n: usize) -> Server {
        let mut command = self.role("coordinator", n);
        command.env("NARROWS_COORDINATOR__LISTEN", format!("127.0.0.1:{}", self.listens[n]));
        Server::start(&self.home, &format!("coordinator-{n}"), &mut command)
    }

    /// The ports on which everybody shows metrics: the workers', the coordinators'.
    pub fn scraped(&self) -> (&[u16], &[u16]) {
        (&self.pages, &self.listens)
    }

    /// Runs a command of the program as an operator does.
    #[track_caller]
    pub fn narrows(&self, words: &[&str]) -> Output {
        let mut run = Command::new(PROGRAM);
        run.args(words).arg("--config").arg(&self.config);
        run.stdin(Stdio::null()).output().expect("the program starts")
    }

    /// The same; it must succeed. What it printed.
    #[track_caller]
    pub fn does(&self, words: &[&str]) -> String {
        let output = self.narrows(words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "narrows {words:?}: {:?}: {said}", output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The API of a coordinator for a tenant.
    pub fn http(&self, coordinator: usize, tenant: Tenant) -> Client {
        let token = format!("Bearer {}.{}", tenant.access_key_id, tenant.secret);
        Client::new(self.listens[coordinator]).with_header("authorization", &token)
    }

    /// The API with no credentials.
    pub fn http_as_nobody(&self, coordinator: usize) -> Client {
        Client::new(self.listens[coordinator])
    }

    #[track_caller]
    pub fn post_job(&self, coordinator: usize, tenant: Tenant, job: &Value) -> Response {
        let sent = self.http(coordinator, tenant).post("/v1/jobs", "application/json", job.to_string().as_bytes());
        sent.expect("the coordinator answers")
    }

    /// Publishes bodies to a queue as any AMQP client may, straight to the broker; returns when all are confirmed.
    pub async fn publish(&self, queue: &str, bodies: &[Vec<u8>]) {
        self.publish_with(queue, bodies, BasicProperties::default()).await;
    }

    /// The same, with what a client says of its messages.
    pub async fn publish_with(&self, queue: &str, bodies: &[Vec<u8>], properties: BasicProperties) {
        let connection = Connection::connect(&self.rabbit.uri("/"), ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        let properties = properties.with_delivery_mode(2);
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let mut confirms = Vec::new();
        for body in bodies {
            let sent = channel.basic_publish("".into(), queue.into(), options, body, properties.clone()).await;
            confirms.push(sent.unwrap());
        }
        for confirm in confirms {
            let confirmed = confirm.await.unwrap();
            assert!(confirmed.is_ack() && confirmed.take_message().is_none(), "a publish to {queue} was refused or returned");
        }
        connection.close(200, "done".into()).await.unwrap();
    }

    /// One of the buckets, past the proxy.
    pub fn bucket(&self, name: &str) -> opendal::Operator {
        let operator = self.bucket_server.operator(name);
        // Somebody may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let transport = opendal::HttpTransporter::new(ReqwestTransport::new(reqwest::Client::new()));
        let context = operator.base_context().with_http_transport(transport);
        operator.with_context(context)
    }

    /// The URI of something the customers see.
    pub fn uri(&self, path: &str) -> String {
        let scheme = match &self.bucket_server {
            BucketServer::Garage(_) => "s3",
            BucketServer::Azure(_) => "az",
        };
        format!("{scheme}://{MEDIA}/{path}")
    }

    /// Puts a file into the customers' bucket; its URI.
    pub async fn source(&self, name: &str, file: &Path) -> String {
        let body = std::fs::read(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let path = format!("in/{name}");
        self.bucket(MEDIA).write(&path, body).await.unwrap();
        self.uri(&path)
    }

    /// A document of the work store, where there is one.
    pub async fn work_json(&self, path: &str) -> Option<Value> {
        match self.bucket(WORK).read(path).await {
            Ok(body) => Some(serde_json::from_slice(&body.to_vec()).unwrap_or_else(|e| panic!("{path}: {e}"))),
            Err(e) if e.kind() == opendal::ErrorKind::NotFound => None,
            Err(e) => panic!("{path}: {e}"),
        }
    }

    /// Paths of the work store under a folder.
    pub async fn work_list(&self, folder: &str) -> Vec<String> {
        let entries = self.bucket(WORK).list_with(folder).recursive(true).await.unwrap();
        entries.into_iter().filter(|e| e.metadata().is_file()).map(|e| e.path().to_string()).collect()
    }

    /// Waits until a job has ended; its state.
    pub async fn ended(&self, job: &str, within: Duration) -> String {
        let begun = Instant::now();
        loop {
            let status = self.work_json(&format!("jobs/{job}/status.json")).await;
            let state = status.as_ref().and_then(|s| s["status"]["state"].as_str()).unwrap_or("none");
            if ["completed", "failed", "canceled", "rejected"].contains(&state) {
                return state.to_string();
            }
            let logs = || self.logs();
            assert!(begun.elapsed() < within, "{job} is {state} after {within:?}\n{}", logs());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// When each event of a job was told, by its id without the job's.
    pub async fn told(&self, job: &str) -> BTreeMap<String, OffsetDateTime> {
        let mut at = BTreeMap::new();
        for path in self.work_list(&format!("events/{job}/")).await {
            let event = self.work_json(&path).await.unwrap_or_default();
            let (text, id) = (event["at"].as_str().unwrap_or_default(), event["id"].as_str().unwrap_or_default());
            let time = OffsetDateTime::parse(text, &Rfc3339).expect("events say when");
            at.insert(id.split_once('/').map_or("", |(_, kind)| kind).to_string(), time);
        }
        at
    }

    /// A small ladder in chunks of two seconds, told to one endpoint.
    pub fn small_job(&self, id: &str, source: &str, callback: &str) -> Value {
        json!({
            "id": id,
            "tenant": ACME.name,
            "input": { "uri": source },
            "output": { "uri": self.uri(&format!("out/{id}/")) },
            "preset": "h264",
            "set": {
                "video.rungs": [{ "height": 120, "crf": 35 }, { "height": 80, "crf": 35 }], "video.speed": "ultrafast",
                "packaging.segment_s": 2, "chunk.grid": "fixed", "chunk.target_s": 2, "chunk.shortest_s": 1,
            },
            "callbacks": [{ "url": callback }],
            "extend": format!("mine-{id}"),
        })
    }

    /// The last lines of everybody.
    pub fn logs(&self) -> String {
        let tail = |server: &Server| {
            let log = server.log();
            let lines: Vec<&str> = log.lines().collect();
            format!("--- {}\n{}\n", server.name(), lines[lines.len().saturating_sub(15)..].join("\n"))
        };
        self.workers.iter().chain(&self.coordinators).map(tail).collect()
    }
}

fn configure(home: &Home, setup: &Setup, broker: &str, stores: &Value) -> PathBuf {
    let private = |name: &str, text: &str| home.write(name, text).display().to_string();
    let webhook = private("webhook-secret", WEBHOOK_SECRET);
    let tenant = |tenant: Tenant| {
        json!({
            "access_key_id": tenant.access_key_id,
            "secret_sha256": hex::encode(Sha256::digest(tenant.secret)),
            "webhook_secret_files": [webhook],
            "allow_private_callbacks": true,
        })
    };
    let settings = json!({
        "log": { "level": "narrows=info,warn" },
        "broker": { "kind": "rabbitmq", "uri_file": private("broker", broker) },
        "work": { "store": "work" },
        "stores": stores,
        "worker": { "slots": setup.slots },
        "scratch": { "part_bytes": 16 * 1024 * 1024 },
        "retry": { "longest_delay_ms": 5000 },
        "callbacks": { "schedule_s": [0, 1, 2, 5, 5, 5, 10, 10, 30, 30, 30], "allow_http": true },
        "coordinator": { "stall_after_s": 5, "sweep_every_s": 1, "settle_after_s": 5 },
        "tenants": { "acme": tenant(ACME), "other": tenant(OTHER) },
    });
    let mut settings: toml::Table = serde_json::from_value(settings).expect("TOML holds it");
    for (path, value) in &setup.set {
        put(&mut settings, path, value.clone());
    }
    home.write("fleet.toml", toml::to_string(&settings).expect("it is a table"))
}

fn put(table: &mut toml::Table, path: &str, value: toml::Value) {
    match path.split_once('.') {
        None => drop(table.insert(path.into(), value)),
        Some((name, rest)) => {
            let inner = table.entry(name).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            put(inner.as_table_mut().expect("a section"), rest, value);
        }
    }
}

//! The API over a real socket: every route, every error, and each answer held against the contract.

mod client;
mod contract;
mod errors;
mod stream;

use super::{Api, Hub, Operator, router, serve};
use crate::broker::{Broker, Queue};
use crate::coordinator::fixture::{SECRET, Site, id, settings, whole_job};
use crate::coordinator::write::Writer;
use crate::event::{Event, Fact, tenant_stream};
use crate::shutdown::{self, Stopper};
use crate::store::key::Key;
use crate::tenant::Secret;
use client::Client;
use serde_json::json;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// A coordinator that answers requests, of a fleet whose events are taken in by the test itself.
struct Server {
    site: Site,
    acme: Client,
    globex: Client,
    operator: Client,
    nobody: Client,
    /// The right to be worked on.
    requests: Arc<Semaphore>,
    stopper: Stopper,
    serving: JoinHandle<()>,
}

impl Server {
    async fn start() -> Self {
        Self::of(Site::new()).await
    }

    async fn of(site: Site) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stopper, stop) = shutdown::channel();
        let operator = Operator::new("ops".into(), &Secret::new(SECRET.as_bytes()).unwrap());
        let hub = Hub::new();
        tokio::spawn(hub.clone().run(Arc::new(site.broker.clone()), stop.clone()));
        let api = Api::new(site.fleet.clone(), &settings(), Some(operator), hub.clone(), stop.clone());
        let (api, requests) = (api.clone().with_metrics(Arc::new(|| "narrows_x 1\n".to_string())), api.requests.clone());
        let serving = tokio::spawn(serve(listener, router(api), settings(), stop));
        let client = |id: &str| Client::basic(address, id, SECRET);
        let (acme, globex, operator) = (client("ak-acme"), client("ak-globex"), client("ops"));
        Self { site, acme, globex, operator, nobody: Client::new(address), requests, stopper, serving }
    }

    async fn stop(self) {
        self.stopper.stop();
        self.serving.await.unwrap();
    }

    /// Takes in what has been told of a job.
    async fn take_in(&self, events: &[Event]) {
        Writer { fleet: &self.site.fleet, job: &events[0].job }.take(events, false).await.unwrap();
    }

    /// A job of acme that went well.
    async fn job(&self, id: &str) {
        self.site.accept(id).await;
        self.take_in(&whole_job(&super::super::fixture::id(id))).await;
    }

    /// The facts told of a job that nobody took in yet.
    async fn told(&self, job: &str) -> Vec<Event> {
        let queue = Queue::events_of(job);
        let mut consumer = self.site.broker.consume(queue, 100).await.unwrap();
        let mut told = Vec::new();
        while self.site.broker.depth(queue).await.unwrap() > 0 {
            let delivery = consumer.next().await.unwrap();
            told.push(serde_json::from_slice(&delivery.body).unwrap());
            delivery.ack().await.unwrap();
        }
        told
    }
}

/// A document that is right.
fn document(more: &str) -> String {
    format!(r#"{{"input":{{"uri":"talk.mp4"}},"output":{{"uri":"out"}},"preset":"h264"{more}}}"#)
}

#[tokio::test]
async fn a_job_goes_from_its_submission_to_its_purge() {
    let server = Server::start().await;
    let (acme, job) = (&server.acme, id("talk"));
    let answer = acme.post("/v1/jobs", &document(r#","id":"talk""#)).await.must("/v1/jobs", 202);
    assert_eq!((answer.header("location"), answer.json()["is_new"].as_bool()), ("/v1/jobs/talk", Some(true)));
    // Not taken in yet, and known all the same.
    let shown = acme.get("/v1/jobs/talk").await.must("/v1/jobs/{id}", 200).json();
    assert_eq!((&shown["status"]["state"], &shown["request"]["tenant"]), (&json!(null), &json!("acme")));
    let again = acme.post("/v1/jobs", &document(r#","id":"talk""#)).await.must("/v1/jobs", 200).json();
    assert_eq!(again["is_new"], false);
    server.take_in(&server.told("talk").await).await;
    assert_eq!(acme.get("/v1/jobs/talk").await.json()["status"]["state"], "accepted");

    let events = acme.get("/v1/jobs/talk/events").await.must("/v1/jobs/{id}/events", 200).json();
    assert_eq!((&events["events"][0]["type"], &events["complete"]), (&json!("job.accepted"), &json!(false)));
    let early = acme.delete("/v1/jobs/talk").await.must("/v1/jobs/{id}", 409).json();
    assert!(early["detail"].as_str().unwrap().contains("cancel it"), "{early}");
    let asked = acme.post("/v1/jobs/talk/cancel", "").await.must("/v1/jobs/{id}/cancel", 202).json();
    assert_eq!(asked["cancel"], "asked");
    let told = server.told("talk").await;
    assert!(matches!(told[0].fact, Fact::JobCanceled { .. }), "{told:?}");
    server.take_in(&told).await;
    assert_eq!(acme.post("/v1/jobs/talk/cancel", "").await.must("/v1/jobs/{id}/cancel", 200).json()["cancel"], "already");
    let replayed = acme.post("/v1/jobs/talk/replay", r#"{"from_sequence":2}"#).await.must("/v1/jobs/{id}/replay", 202).json();
    assert_eq!((&replayed["from_sequence"], &replayed["to_sequence"]), (&json!(2), &json!(2)));
    let purged = acme.delete("/v1/jobs/talk").await.must("/v1/jobs/{id}", 200).json();
    assert!(purged["objects"].as_u64().unwrap() > 5, "{purged}");
    let events = server.site.fleet.stores.work().list(&Key::events(&job)).await.unwrap();
    assert_eq!(events, Vec::<String>::new());
    acme.get("/v1/jobs/talk").await.must("/v1/jobs/{id}", 404);
    server.stop().await;
}

#[tokio::test]
async fn a_key_makes_a_document_without_an_id_the_same_job_for_one_tenant() {
    let server = Server::start().await;
    let keyed =
        async |client: &Client, key: &str, body: String| client.send("POST", "/v1/jobs", &[("idempotency-key", key)], body).await;
    let first = keyed(&server.acme, "order-7", document("")).await.must("/v1/jobs", 202).json();
    let again = keyed(&server.acme, "order-7", document("")).await.must("/v1/jobs", 200).json();
    assert_eq!(first["job"], again["job"]);
    let other = keyed(&server.acme, "order-7", document(r#","lane":"low""#)).await.must("/v1/jobs", 409).json();
    assert_eq!(other["field"], "id");
    let theirs = keyed(&server.globex, "order-7", document("")).await.must("/v1/jobs", 202).json();
    assert_ne!(first["job"], theirs["job"]);
    let by_content = server.acme.post("/v1/jobs", &document(r#","lane":"high""#)).await.must("/v1/jobs", 202).json();
    let same_content = server.acme.post("/v1/jobs", &document(r#","lane":"high""#)).await.must("/v1/jobs", 200).json();
    assert_eq!(by_content["job"], same_content["job"]);
    server.stop().await;
}

#[tokio::test]
async fn another_tenants_jobs_do_not_exist_and_an_operator_sees_all() {
    let server = Server::start().await;
    server.job("talk").await;
    for (method, path, route) in [
        ("GET", "/v1/jobs/talk", "/v1/jobs/{id}"),
        ("GET", "/v1/jobs/talk/events", "/v1/jobs/{id}/events"),
        ("POST", "/v1/jobs/talk/cancel", "/v1/jobs/{id}/cancel"),
        ("POST", "/v1/jobs/talk/replay", "/v1/jobs/{id}/replay"),
        ("DELETE", "/v1/jobs/talk", "/v1/jobs/{id}"),
    ] {
        let theirs = server.globex.send(method, path, &[], String::new()).await.must(route, 404).json();
        let none = server.globex.send(method, &path.replace("talk", "none"), &[], String::new()).await.must(route, 404).json();
        assert_eq!((&theirs["title"], &theirs["field"]), (&none["title"], &none["field"]), "{method} {path}");
        assert_eq!(theirs["detail"].as_str().unwrap().replace("talk", "none"), none["detail"].as_str().unwrap());
    }
    assert_eq!(server.globex.get("/v1/jobs").await.must("/v1/jobs", 200).json()["jobs"], json!([]));
    let taken = server.globex.post("/v1/jobs", &document(r#","id":"talk""#)).await.must("/v1/jobs", 409).json();
    assert_eq!(taken["field"], "id");
    assert_eq!(server.operator.get("/v1/jobs").await.must("/v1/jobs", 200).json()["jobs"][0]["tenant"], "acme");
    assert_eq!(server.operator.get("/v1/jobs/talk").await.must("/v1/jobs/{id}", 200).json()["tenant"], "acme");
    server.operator.post("/v1/jobs", &document("")).await.must("/v1/jobs", 422);
    server.operator.post("/v1/jobs", &document(r#","tenant":"globex""#)).await.must("/v1/jobs", 202);
    server.stop().await;
}

#[tokio::test]
async fn a_list_is_read_page_by_page_and_by_state() {
    let server = Server::start().await;
    for n in 0..7 {
        server.site.accept(&format!("job-{n}")).await;
        let told = whole_job(&id(&format!("job-{n}")));
        server.take_in(if n % 2 == 0 { &told } else { &told[..3] }).await;
    }
    let all = async |query: &str| {
        let (mut jobs, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = server.acme.get(&format!("/v1/jobs?{query}{cursor}")).await.must("/v1/jobs", 200).json();
            let listed = page["jobs"].as_array().unwrap();
            assert!(listed.len() <= 2);
            jobs.extend(listed.iter().map(|job| job["job"].as_str().unwrap().to_string()));
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return jobs,
            }
        }
    };
    assert_eq!(all("limit=2").await.len(), 7);
    assert_eq!(all("limit=2&state=started").await, ["job-1", "job-3", "job-5"]);
    assert_eq!(all("limit=2&state=completed").await, ["job-0", "job-2", "job-4", "job-6"]);
    assert_eq!(all("limit=2&state=failed").await, [""; 0]);
    server.stop().await;
}

#[tokio::test]
async fn usage_counts_each_job_once_and_each_tenant_by_itself() {
    let server = Server::start().await;
    for n in 0..3 {
        server.job(&format!("job-{n}")).await;
        Writer { fleet: &server.site.fleet, job: &id(&format!("job-{n}")) }
            .take(&whole_job(&id(&format!("job-{n}"))), true)
            .await
            .unwrap();
    }
    let days = "from=2023-11-13&to=2023-11-15";
    let usage = server.acme.get(&format!("/v1/usage?{days}")).await.must("/v1/usage", 200).json();
    assert_eq!((&usage["jobs"], &usage["total"]["frames"], &usage["total"]["cpu_s"]), (&json!(3), &json!(300), &json!(36.0)));
    assert_eq!(usage["days"][0]["day"], "2023-11-14");
    assert_eq!(server.globex.get(&format!("/v1/usage?{days}")).await.must("/v1/usage", 200).json()["jobs"], 0);
    server.globex.get(&format!("/v1/usage?{days}&tenant=acme")).await.must("/v1/usage", 403);
    let by_operator = server.operator.get(&format!("/v1/usage?{days}&tenant=acme")).await.must("/v1/usage", 200).json();
    assert_eq!(by_operator, usage);
    server.stop().await;
}

#[tokio::test]
async fn a_frozen_tenant_starts_nothing_new_and_reads_why() {
    let server = Server::start().await;
    let freeze = "/v1/tenants/{id}/freeze";
    server.acme.post("/v1/tenants/acme/freeze", r#"{"reason":"x"}"#).await.must(freeze, 403);
    server.operator.post("/v1/tenants/none/freeze", r#"{"reason":"x"}"#).await.must(freeze, 404);
    assert_eq!(server.operator.post("/v1/tenants/acme/freeze", "").await.must(freeze, 422).json()["field"], "reason");
    server.operator.post("/v1/tenants/acme/freeze", r#"{"reason":"unpaid since May"}"#).await.must(freeze, 200);
    let refused = server.acme.post("/v1/jobs", &document("")).await.must("/v1/jobs", 403).json();
    assert!(refused["detail"].as_str().unwrap().contains("unpaid since May"), "{refused}");
    server.globex.post("/v1/jobs", &document("")).await.must("/v1/jobs", 202);
    let shown = server.acme.get("/v1/tenants/acme").await.must("/v1/tenants/{id}", 200).json();
    assert_eq!(shown["frozen"]["reason"], "unpaid since May");
    server.globex.get("/v1/tenants/acme").await.must("/v1/tenants/{id}", 404);
    let told = server.told(tenant_stream("acme").as_str()).await;
    assert!(matches!(told[0].fact, Fact::TenantFrozen { .. }));
    let unfreeze = "/v1/tenants/{id}/unfreeze";
    let wrong = server.operator.post("/v1/tenants/acme/unfreeze", r#"{"reason":""}"#).await.must(unfreeze, 422).json();
    assert_eq!(wrong["field"], "reason");
    let paid = r#"{"reason":"paid in June"}"#;
    let unfrozen = server.operator.post("/v1/tenants/acme/unfreeze", paid).await.must(unfreeze, 200).json();
    assert_eq!(unfrozen["was_frozen"], true);
    let told = server.told(tenant_stream("acme").as_str()).await;
    assert!(matches!(&told[0].fact, Fact::TenantUnfrozen { reason: Some(reason), .. } if reason == "paid in June"));
    let again = server.operator.post("/v1/tenants/acme/unfreeze", "").await.must(unfreeze, 200).json();
    assert_eq!(again["was_frozen"], false);
    server.acme.post("/v1/jobs", &document("")).await.must("/v1/jobs", 202);
    assert_eq!(server.site.fleet.stores.work().size(&Key::frozen("acme")).await.unwrap(), None);
    server.stop().await;
}

#[tokio::test]
async fn whoever_runs_the_coordinator_is_answered_however_many_requests_there_are() {
    let server = Server::start().await;
    let all = u32::try_from(server.requests.available_permits()).unwrap();
    let held = server.requests.clone().try_acquire_many_owned(all).unwrap();
    server.nobody.get("/readyz").await.must("/readyz", 503);
    server.nobody.get("/healthz").await.must("/healthz", 200);
    let metrics = server.nobody.get("/metrics").await.must("/metrics", 200);
    assert_eq!(metrics.header("content-type"), crate::observe::TEXT_FORMAT);
    drop(held);
    server.nobody.get("/readyz").await.must("/readyz", 200);
    server.stop().await;
}

#[tokio::test]
async fn health_needs_no_key_and_readiness_ends_with_the_request_to_stop() {
    let server = Server::start().await;
    server.nobody.get("/healthz").await.must("/healthz", 200);
    assert_eq!(server.nobody.get("/readyz").await.must("/readyz", 200).json()["ready"], true);
    let contract = server.nobody.get("/openapi.json").await.must("/openapi.json", 200);
    assert_eq!(contract.json()["openapi"], "3.1.0");
    server.stop().await;
}

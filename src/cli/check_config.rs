//! `narrows check-config`: what a settings file means, section by section, without a secret.

use super::exit::{Exit, Failed};
use super::presets::write_out;
use super::rows::{plain, size};
use super::{configure, exit_codes, fleet};
use crate::broker::rabbit::Kind;
use crate::config::Config;
use crate::job::Class;
use crate::media::options;
use crate::plan::preset::{BUILT_IN, Preset};
use crate::store::config::{Role, StoreConfig, StoreKind};
use crate::tenant::{Tenant, Tenants};
use crate::worker::{DeviceSettings, StandIn};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

const EXAMPLES: &str = concat!(
    "Examples:
  narrows check-config fleet.toml
  narrows check-config fleet.toml --json

Reads everything that a worker or a coordinator would read at its start, the files and variables of secrets among it, and
connects to nothing: narrows doctor does that.

",
    exit_codes!("0 it can be used; 2 misuse; 64 it cannot: the message names the layer and the field")
);

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Settings file of the fleet; the environment (NARROWS_...) is read as well.
    #[arg(value_name = "FILE")]
    config: PathBuf,
    /// Print what it means as one JSON document.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<Exit, Failed> {
    let config = configure(Some(&args.config))?;
    let name = args.config.display();
    // As a worker and a coordinator would do it: what is wrong is told by its field.
    let in_file = |failed: Failed| failed.exit.because(format!("{name}: {}", failed.message));
    let tenants = fleet::tenants(&config, true).map_err(in_file)?;
    if config.work.is_some() {
        fleet::stores(&config, &crate::observe::nobody()).map_err(in_file)?;
    }
    let traces = traces(&config).map_err(in_file)?;
    let said = meaning(&config, &tenants, traces);
    if args.json {
        let document = serde_json::json!({ "ok": true, "sections": said });
        return write_out(&format!("{document:#}\n"));
    }
    let width = said.iter().map(|line| line.section.chars().count()).max().unwrap_or(0);
    let line = |line: &Meaning| format!("{:<width$}  {}\n", plain(&line.section), plain(&line.means));
    write_out(&said.iter().map(line).collect::<String>())
}

/// What one section comes to.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Meaning {
    section: String,
    means: String,
}

fn meaning(config: &Config, tenants: &Tenants, traces: String) -> Vec<Meaning> {
    let say = |section: &str, means: String| Meaning { section: section.into(), means };
    let mut said = vec![say("broker", broker(config))];
    said.push(match &config.work {
        Some(work) => say("work", format!("jobs, plans, events and usage are kept in the store {}", work.store)),
        None => say("work", "not set: good for narrows transcode alone; a fleet needs [work] store = NAME".into()),
    });
    let work = config.work.as_ref().map(|work| work.store.as_str());
    said.extend(config.stores.0.iter().map(|(name, settings)| say(&format!("stores.{name}"), store(name, settings, work))));
    said.extend(tenants.iter().map(|t| say(&format!("tenants.{}", t.name), tenant(config, t))));
    said.push(say("submit", submit(config)));
    said.push(say("worker", worker(config)));
    said.extend(config.worker.devices.iter().enumerate().map(|(n, d)| say(&format!("worker.devices[{n}]"), device(d))));
    said.push(say("devices", devices(config)));
    said.push(say("retry", retry(config)));
    let folder = config.scratch.folder.clone().unwrap_or_else(|| std::env::temp_dir().join("narrows"));
    said.push(say("scratch", format!("the folder {}; {} for a part", folder.display(), size(config.scratch.part_bytes))));
    let sandbox = &config.sandbox;
    let level = format!("{:?}", sandbox.minimum_jail).to_lowercase();
    let (deadline, stall) = (sandbox.deadline_s, sandbox.stall_s);
    said.push(say("sandbox", format!("at least {level}; a child has {deadline} s, and {stall} s without progress")));
    said.push(say("coordinator", format!("HTTP at {}", config.coordinator.listen)));
    said.push(say("callbacks", callbacks(config)));
    said.push(say("telemetry", traces));
    said
}

/// Where traces go, with the environment that a process would find.
fn traces(config: &Config) -> Result<String, Failed> {
    let Some(settings) = &config.telemetry.traces else { return Ok("no traces".into()) };
    let url = settings.url(|name| std::env::var(name).ok()).map_err(fleet::wrong_traces)?;
    let share = settings.sample_ratio * 100.0;
    Ok(format!("traces to {url}, of {share} % of the jobs, and of those whose customers record theirs"))
}

fn submit(config: &Config) -> String {
    let trusted = &config.submit.trusted_users;
    match (config.submit.require_user_id, trusted.is_empty()) {
        (false, _) => "over AMQP a job's tenant is the one it names".into(),
        (true, true) => "over AMQP a job's tenant is the one of its broker user".into(),
        (true, false) => format!("over AMQP a job's tenant is the one of its broker user; {} submit for any", trusted.join(", ")),
    }
}

fn worker(config: &Config) -> String {
    let worker = &config.worker;
    if !worker.software {
        return "nothing but what its devices encode".into();
    }
    let (slots, threads) = (super::local::slots(config), worker.threads_per_slot);
    let why = if worker.slots == 0 { ", one for each core of this machine" } else { "" };
    let listen = worker.listen.map_or(String::new(), |address| format!("; health at {address}"));
    format!(
        "{slots} children at once{why}, {threads} threads for each encoder; {} parts of a job under way; drained after {} s{listen}",
        worker.window, worker.drain_s
    )
}

fn device(settings: &DeviceSettings) -> String {
    let at_once = settings.sessions;
    match &settings.stand_in {
        None => format!("{}, {at_once} encodes at once", settings.as_told()),
        Some(StandIn { fails_while: None }) => format!("{}, {at_once} encodes at once: a software encoder", settings.as_told()),
        Some(StandIn { fails_while: Some(file) }) => {
            format!(
                "{}, {at_once} encodes at once: a software encoder that fails while there is {}",
                settings.as_told(),
                file.display()
            )
        }
    }
}

/// The classes, with what each has for the presets' encoders as far as this libavcodec knows them.
fn devices(config: &Config) -> String {
    let rules = &config.devices;
    if rules.classes.is_empty() {
        return "none: everything is encoded in software".into();
    }
    let classes: Vec<String> = rules.classes.iter().map(|class| format!("{class} ({})", equivalents(*class))).collect();
    let (wait, first, longest) = (rules.wait_s, rules.retest_first_s, rules.retest_longest_s);
    format!(
        "{}; software after {wait} s, where a job leaves that open; what failed is tried again after {first} to {longest} s",
        classes.join(", ")
    )
}

fn equivalents(class: Class) -> String {
    let presets = BUILT_IN.iter().filter_map(|(name, _)| Preset::built_in(name, &BTreeMap::new()).ok()?.video);
    let all = presets.filter_map(|rules| rules.equivalents.get(&class).cloned());
    let said = all.map(|equivalent| match options::check_equivalent(&equivalent) {
        Ok(()) => equivalent.encoder,
        Err((_, reason)) => reason,
    });
    said.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", ")
}

fn retry(config: &Config) -> String {
    let retry = &config.retry;
    format!(
        "{} attempts of a part that crashes, {} while a store or the broker is away, {} to {} ms apart",
        retry.attempts, retry.outage_attempts, retry.first_delay_ms, retry.longest_delay_ms
    )
}

fn callbacks(config: &Config) -> String {
    let callbacks = &config.callbacks;
    let http = if callbacks.allow_http { "http and https" } else { "https" };
    let private: Vec<String> = callbacks.allow_private.iter().map(ToString::to_string).collect();
    let beside = if private.is_empty() { String::new() } else { format!(" and in {}", private.join(", ")) };
    let total = humantime::format_duration(Duration::from_secs(callbacks.schedule_s.iter().sum()));
    format!("{http} to public addresses{beside}; {} attempts within {total}", callbacks.schedule_s.len())
}

fn broker(config: &Config) -> String {
    let broker = &config.broker;
    match (broker.kind, &broker.uri_file, &broker.uri) {
        (Kind::Memory, ..) => "in this process alone; a fleet needs kind = \"rabbitmq\"".into(),
        (Kind::RabbitMq, Some(file), _) => format!("RabbitMQ, its URI in {}", file.display()),
        // Shown without user and password.
        (Kind::RabbitMq, None, Some(uri)) => format!("RabbitMQ at {uri:?}"),
        (Kind::RabbitMq, None, None) => "RabbitMQ".into(),
    }
}

fn store(name: &str, settings: &StoreConfig, work: Option<&str>) -> String {
    let of = |field: &Option<String>| field.clone().unwrap_or_default();
    let bucket = |scheme: &str| {
        let root = settings.root.as_deref().unwrap_or_default().trim_matches('/');
        let place = [&of(&settings.bucket), root].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
        let at = settings.endpoint.as_ref().map_or(String::new(), |endpoint| format!(" at {endpoint}"));
        format!("{scheme}://{place}{at}")
    };
    let place = match settings.kind {
        StoreKind::S3 => bucket("s3"),
        StoreKind::Gcs => bucket("gs"),
        StoreKind::Azblob => bucket("az"),
        StoreKind::Fs => format!("the folder {}", of(&settings.root)),
        StoreKind::Http if settings.public => "http(s) from every public host".into(),
        StoreKind::Http => format!("http(s) from {}", settings.hosts.join(", ")),
    };
    let roles: Vec<&str> = settings.roles(name, work).into_iter().map(role).collect();
    let whose = match &settings.tenants {
        Some(tenants) => format!("of {}", tenants.join(", ")),
        None => "of every tenant".into(),
    };
    match roles.as_slice() {
        ["work"] => format!("{place}: the work"),
        roles => {
            let read_at = settings.public_url.as_ref().map_or(String::new(), |url| format!("; everybody reads at {url}"));
            format!("{place}: {} {whose}{read_at}", roles.join(" and "))
        }
    }
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Work => "work",
        Role::Source => "sources",
        Role::Output => "outputs",
    }
}

fn tenant(config: &Config, tenant: &Tenant) -> String {
    let mut words = vec![match &tenant.access_key_id {
        Some(id) => format!("HTTP by access key {id}"),
        None if config.tenants.is_empty() => "the only one, as none is configured; nobody is asked who he is".into(),
        None => "no access by HTTP".into(),
    }];
    if !tenant.amqp_users.is_empty() {
        words.push(format!("AMQP by {}", tenant.amqp_users.join(", ")));
    }
    let may = |(name, store): &(&String, &StoreConfig)| tenant.may_use(name, store.tenants.as_deref());
    let is_work = |name: &str| config.work.as_ref().is_some_and(|work| work.store == name);
    let stores: Vec<&str> =
        config.stores.0.iter().filter(|(name, _)| !is_work(name)).filter(may).map(|(name, _)| name.as_str()).collect();
    words.push(if stores.is_empty() { "no store".into() } else { format!("stores {}", stores.join(", ")) });
    if !tenant.callbacks.is_empty() {
        // Hosts only: customers put keys into paths.
        let host = |url: &str| url::Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_string));
        let hosts: Vec<String> = tenant.callbacks.iter().filter_map(|callback| host(&callback.url)).collect();
        words.push(format!("callbacks to {}", hosts.join(", ")));
    }
    if let Some(keys) = tenant.keys.as_ref().filter(|keys| !keys.webhook.is_empty()) {
        words.push(format!("signed with {} keys", keys.webhook.len()));
    }
    let quota = &tenant.quota;
    let limits = [
        quota.active_jobs.map(|n| format!("{n} jobs at once")),
        quota.queued_jobs.map(|n| format!("{n} waiting")),
        quota.minutes_per_day.map(|n| format!("{n} minutes a day")),
    ];
    let limits: Vec<String> = limits.into_iter().flatten().collect();
    words.push(if limits.is_empty() { "no quota".into() } else { format!("at most {}", limits.join(", ")) });
    words.join("; ")
}

//! What a type cannot say of the settings: ranges, and what must fit together.

use super::Config;
use crate::tenant::Tenants;
use std::collections::BTreeSet;

/// Between the longest time of a child and that of its part there must be time to upload, seconds.
const UPLOAD_S: u64 = 30;

/// The first field that is wrong: its path, and why.
pub(super) fn check(config: &Config) -> Result<(), (String, String)> {
    for (path, value, least, most) in ranges(config) {
        if !(least..=most).contains(&value) {
            return Err((path.into(), format!("is {value}; allowed are {least} to {most}")));
        }
    }
    crate::telemetry::check(&config.log).map_err(|reason| ("log.level".to_string(), reason))?;
    if let Some(traces) = &config.telemetry.traces {
        traces.check().map_err(|(field, reason)| (format!("telemetry.traces.{field}"), reason))?;
    }
    let least = config.sandbox.deadline_s + UPLOAD_S;
    if config.worker.part_deadline_s < least {
        let reason =
            format!("is {}; it must be at least {least}: sandbox.deadline_s, and time to upload", config.worker.part_deadline_s);
        return Err(("worker.part_deadline_s".into(), reason));
    }
    let name = config.worker.name.as_ref();
    if name.is_some_and(|name| !crate::job::is_safe_name(name)) {
        return Err(("worker.name".into(), "is 1 to 64 letters, digits, '.', '_' or '-', and does not start with '.'".into()));
    }
    devices(config)?;
    if config.scratch.worker_bytes > 0 && config.scratch.worker_bytes < config.scratch.part_bytes {
        return Err(("scratch.worker_bytes".into(), "is less than scratch.part_bytes: no part could ever be started".into()));
    }
    config.broker.check().map_err(|(field, reason)| (format!("broker.{field}"), reason))?;
    let work = config.work.as_ref().map(|work| work.store.as_str());
    config.stores.check(work).map_err(|e| (e.path, e.reason))?;
    config.callbacks.check().map_err(|(field, reason)| (format!("callbacks.{field}"), reason))?;
    config.coordinator.check().map_err(|(field, reason)| (format!("coordinator.{field}"), reason))?;
    tenants(config)
}

fn ranges(config: &Config) -> Vec<(&'static str, u64, u64, u64)> {
    let Config { worker, devices, retry, sandbox, scratch, .. } = config;
    let mut ranges = vec![
        ("worker.slots", worker.slots as u64, 0, 1024),
        ("devices.wait_s", devices.wait_s, 1, 86_400),
        ("devices.retest_first_s", devices.retest_first_s, 1, 86_400),
        ("devices.retest_longest_s", devices.retest_longest_s, 1, 86_400),
        ("worker.threads_per_slot", u64::from(worker.threads_per_slot), 1, 64),
        ("worker.window", u64::from(worker.window), 1, 10_000),
        // RabbitMQ takes a message back that was not settled for 30 minutes.
        ("worker.part_deadline_s", worker.part_deadline_s, 1, 1200),
        ("worker.drain_s", worker.drain_s, 2, 3600),
        ("worker.lanes.high", u64::from(worker.lanes.high), 1, 1000),
        ("worker.lanes.normal", u64::from(worker.lanes.normal), 1, 1000),
        ("worker.lanes.low", u64::from(worker.lanes.low), 1, 1000),
        ("retry.attempts", u64::from(retry.attempts), 1, 15),
        ("retry.outage_attempts", u64::from(retry.outage_attempts), 1, 900),
        ("retry.longest_delay_ms", retry.longest_delay_ms, 0, 600_000),
        ("sandbox.deadline_s", sandbox.deadline_s, 1, 1140),
        ("sandbox.stall_s", sandbox.stall_s, 1, 1140),
        ("sandbox.stderr_tail_bytes", sandbox.stderr_tail_bytes as u64, 0, 1024 * 1024),
        ("sandbox.kill_grace_ms", sandbox.kill_grace_ms, 0, 1000),
        ("scratch.part_bytes", scratch.part_bytes, 0, 1 << 50),
    ];
    ranges.extend(config.coordinator.ranges());
    ranges
}

fn devices(config: &Config) -> Result<(), (String, String)> {
    config.devices.check().map_err(|(field, reason)| (format!("devices.{field}"), reason))?;
    if !config.worker.software && config.worker.devices.is_empty() {
        return Err((
            "worker.software".into(),
            "is false, and there are no [[worker.devices]]: the worker would do nothing".into(),
        ));
    }
    for (n, device) in config.worker.devices.iter().enumerate() {
        let wrong = |field: &str, reason: String| (format!("worker.devices[{n}].{field}"), reason);
        device.check().map_err(|(field, reason)| wrong(field, reason))?;
        if !config.devices.classes.contains(&device.class) {
            let reason = format!("is {}, which is not among devices.classes: no job would be sent there", device.class);
            return Err(wrong("class", reason));
        }
    }
    Ok(())
}

fn tenants(config: &Config) -> Result<(), (String, String)> {
    Tenants::new(&config.tenants, config.submit.rules()).map_err(|e| (e.path, e.reason))?;
    let stores: BTreeSet<&String> = config.stores.0.keys().collect();
    for (name, tenant) in &config.tenants {
        if let Some(unknown) = tenant.stores.iter().flatten().find(|store| !stores.contains(store)) {
            return Err((format!("tenants.{name}.stores"), format!("'{unknown}' is none of [stores]")));
        }
    }
    for (name, store) in &config.stores.0 {
        if let Some(unknown) = store.tenants.iter().flatten().find(|tenant| !config.tenants.contains_key(*tenant)) {
            return Err((format!("stores.{name}.tenants"), format!("'{unknown}' is none of [tenants]")));
        }
    }
    if config.submit.require_user_id && config.tenants.is_empty() {
        let reason = "is true, but there are no [tenants] whose users there could be";
        return Err(("submit.require_user_id".into(), reason.into()));
    }
    Ok(())
}

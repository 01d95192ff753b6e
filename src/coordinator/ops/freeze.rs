//! Stopping a tenant's new work, and letting it go on.

use super::found::OpError;
use crate::coordinator::clock::now_ms;
use crate::coordinator::fleet::Fleet;
use crate::event::{Fact, tenant_stream};
use crate::store::key::Key;
use crate::tenant::Frozen;

/// Longest reason, bytes: it is sent to the tenant.
const MAX_REASON_BYTES: usize = 512;

/// Is the tenant frozen?
///
/// # Errors
/// The store cannot be asked.
pub async fn frozen(fleet: &Fleet, tenant: &str) -> Result<Option<Frozen>, OpError> {
    Ok(fleet.stores.work().get_json(&Key::frozen(tenant)).await?)
}

/// Stops a tenant's new work and tells the tenant. Frozen already, it stays so for its first reason, and is told of it
/// again if that was not heard.
///
/// # Errors
/// There is no such tenant, the reason is empty or too long, or the store or the broker cannot be reached.
pub async fn freeze(fleet: &Fleet, tenant: &str, reason: &str) -> Result<Frozen, OpError> {
    known(fleet, tenant)?;
    check(reason)?;
    let now = Frozen { reason: reason.into(), since_ms: now_ms() };
    let frozen = match frozen(fleet, tenant).await? {
        Some(frozen) => frozen,
        None => {
            fleet.stores.work().put_json(&Key::frozen(tenant), &now).await?;
            now
        }
    };
    let fact = Fact::TenantFrozen { reason: frozen.reason.clone(), since_ms: frozen.since_ms };
    fleet.tell(&tenant_stream(tenant), tenant, frozen.since_ms, fact).await?;
    Ok(frozen)
}

/// Lets a tenant start new work again, and tells it, with the reason if there is one. True when it was frozen.
///
/// # Errors
/// There is no such tenant, the reason is empty or too long, or the store or the broker cannot be reached.
pub async fn unfreeze(fleet: &Fleet, tenant: &str, reason: Option<&str>) -> Result<bool, OpError> {
    known(fleet, tenant)?;
    reason.map_or(Ok(()), check)?;
    let Some(frozen) = frozen(fleet, tenant).await? else { return Ok(false) };
    let since_ms = now_ms().max(frozen.since_ms + 1);
    // Told first: a request that breaks off in between is repeated, because the tenant is still frozen.
    let fact = Fact::TenantUnfrozen { since_ms, reason: reason.map(str::to_string) };
    fleet.tell(&tenant_stream(tenant), tenant, since_ms, fact).await?;
    fleet.stores.work().delete(&Key::frozen(tenant)).await?;
    fleet.wake(tenant).await?;
    Ok(true)
}

/// A reason that a person can be told.
fn check(reason: &str) -> Result<(), OpError> {
    if reason.trim().is_empty() || reason.chars().any(char::is_control) {
        return Err(OpError::invalid("reason", "is empty or holds a control character; say in a line why"));
    }
    if reason.len() > MAX_REASON_BYTES {
        let said = format!("has {} bytes; at most {MAX_REASON_BYTES} are allowed", reason.len());
        return Err(OpError::invalid("reason", said));
    }
    Ok(())
}

fn known(fleet: &Fleet, tenant: &str) -> Result<(), OpError> {
    if fleet.tenants.get(tenant).is_some() { Ok(()) } else { Err(OpError::NoTenant(tenant.into())) }
}

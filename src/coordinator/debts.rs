//! What endpoints have not been told yet of a job that rests: found by looking at their cursors, whatever became of the
//! messages that were to remind somebody of it.

use super::endpoints;
use super::fleet::Fleet;
use crate::callback::cursor::Cursor;
use crate::callback::{self, EndpointId};
use crate::event::{Projection, Recorded};
use crate::job::Callback;
use crate::store::StoreError;
use crate::store::key::Key;
use std::collections::BTreeSet;

/// Events looked through for one that an endpoint wants: the last ones, as a rule the very last is.
const MOST_LOOKED_THROUGH: u64 = 1000;

/// Events that an endpoint is still to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Debt {
    pub endpoint: Callback,
    /// When the next attempt is due, milliseconds since 1970; of one that was never tried, when the last event was told.
    pub due_ms: u64,
}

/// What is owed of a job's events. An endpoint that wants no more callbacks, or is configured no more, is owed nothing.
///
/// # Errors
/// The work store cannot be asked.
pub(super) async fn of(fleet: &Fleet, projection: &Projection) -> Result<Vec<Debt>, StoreError> {
    let (job, tenant, work) = (&projection.job, &projection.tenant, fleet.stores.work());
    let (mut debts, mut known) = (Vec::new(), BTreeSet::new());
    for endpoint in endpoints::of(fleet, job, tenant).await? {
        let id = EndpointId::of(&endpoint);
        if !known.insert(id.clone()) {
            continue;
        }
        let cursor = match work.get_json::<Cursor>(&Key::cursor(job, id.as_str())).await {
            // Who delivers begins anew, too.
            Err(StoreError::Malformed { .. }) => None,
            cursor => cursor?,
        };
        let cursor = cursor.unwrap_or_default();
        if is_wanted(fleet, projection, cursor.next_sequence, &endpoint).await?
            && work.size(&Key::disabled(tenant, id.as_str())).await?.is_none()
        {
            debts.push(Debt { endpoint, due_ms: cursor.due_ms.max(projection.updated_ms) });
        }
    }
    Ok(debts)
}

/// Does the endpoint want one of the events from this one on?
async fn is_wanted(fleet: &Fleet, projection: &Projection, next: u64, endpoint: &Callback) -> Result<bool, StoreError> {
    let first = next.max(projection.sequence.saturating_sub(MOST_LOOKED_THROUGH));
    for sequence in (first..=projection.sequence).rev() {
        let event = fleet.stores.work().get_json::<Recorded>(&Key::event(&projection.job, sequence)).await?;
        if event.is_some_and(|event| callback::wants(endpoint, &event.kind)) {
            return Ok(true);
        }
    }
    Ok(false)
}

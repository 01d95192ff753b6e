//! Are the stores what the configuration says? Each is asked for what its roles need, and what fails comes with its fix.

use super::config::Role;
use super::key::Key;
use super::stores::{Named, Place};
use super::{Store, StoreError, Stores};

/// One thing that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Name of the store.
    pub store: String,
    /// `list`, `write`, `read back`, `delete`.
    pub what: &'static str,
    /// What is wrong, and how to mend it.
    pub outcome: Result<(), String>,
}

impl Stores {
    /// Tries every store of the configuration: listing, and where it is written to, a small object there and back.
    pub async fn check(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for named in self.named() {
            let (Place::Bucket { store, .. } | Place::Folder { store, .. }) = &named.place else {
                // Which hosts will be asked, only a job can tell.
                continue;
            };
            let wrong = try_out(named, store, &mut findings).await.err();
            if let Some((what, reason)) = wrong {
                findings.push(Finding { store: named.name.clone(), what, outcome: Err(reason) });
            }
        }
        findings
    }
}

/// Notes what works, up to the first thing that does not.
async fn try_out(named: &Named, store: &Store, findings: &mut Vec<Finding>) -> Result<(), (&'static str, String)> {
    let mut works = |what| findings.push(Finding { store: named.name.clone(), what, outcome: Ok(()) });
    let failed =
        |what, needs: &'static str| move |e: StoreError| (what, format!("{}; {needs}", e.to_string().trim_start_matches(": ")));
    store.list_after("", None, 1).await.map_err(failed("list", "listing must be allowed: s3:ListBucket or alike"))?;
    works("list");
    if named.roles.iter().all(|role| *role == Role::Source) {
        return Ok(());
    }
    let key = Key::trial(&format!("{:016x}", rand::random::<u64>()));
    let body = key.path().as_bytes().to_vec();
    let writing = failed("write", "writing must be allowed: s3:PutObject or alike");
    store.put(&key, body.clone()).await.map_err(writing)?;
    works("write");
    let back = store.get(&key).await.map_err(failed("read back", "reading must be allowed: s3:GetObject or alike"))?;
    if back != body {
        let reason = "another content came back than was written: the store is not fit to hold anything";
        return Err(("read back", reason.into()));
    }
    works("read back");
    let deleting = "deleting must be allowed: s3:DeleteObject or alike";
    store.delete(&key).await.map_err(failed("delete", deleting))?;
    match store.size(&key).await {
        Ok(None) => works("delete"),
        Ok(Some(_)) => return Err(("delete", format!("{} is still there; {deleting}", key.path()))),
        Err(e) => return Err(("delete", e.to_string())),
    }
    Ok(())
}

//! Are the stores what the configuration says? Each is asked for what its roles need, and what fails comes with its fix.

use super::config::{Role, StoreKind};
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

/// What the one who asks must be allowed to do, in the words of the service.
struct Permissions {
    list: &'static str,
    write: &'static str,
    read: &'static str,
    delete: &'static str,
}

impl Permissions {
    fn of(place: &Place) -> Self {
        let words = |[list, write, read, delete]: [&'static str; 4]| Self { list, write, read, delete };
        match place {
            Place::Bucket { kind: StoreKind::Gcs, .. } => {
                words(["storage.objects.list", "storage.objects.create", "storage.objects.get", "storage.objects.delete"])
            }
            Place::Bucket { kind: StoreKind::Azblob, .. } => {
                words(["sp=l in a shared access signature", "sp=cw in one", "sp=r in one", "sp=d in one"])
            }
            Place::Bucket { .. } => {
                words(["s3:ListBucket or alike", "s3:PutObject or alike", "s3:GetObject or alike", "s3:DeleteObject or alike"])
            }
            Place::Folder { .. } | Place::Web(_) => words(["chmod +rx", "chmod +rwx", "chmod +r", "chmod +rwx"]),
        }
    }
}

/// Notes what works, up to the first thing that does not.
async fn try_out(named: &Named, store: &Store, findings: &mut Vec<Finding>) -> Result<(), (&'static str, String)> {
    let mut works = |what| findings.push(Finding { store: named.name.clone(), what, outcome: Ok(()) });
    let may = Permissions::of(&named.place);
    let failed = |what, doing: &'static str, needed: &'static str| {
        move |e: StoreError| (what, format!("{}; {doing} must be allowed: {needed}", e.to_string().trim_start_matches(": ")))
    };
    store.list_after("", None, 1).await.map_err(failed("list", "listing", may.list))?;
    works("list");
    if named.roles.iter().all(|role| *role == Role::Source) {
        return Ok(());
    }
    let key = Key::trial(&format!("{:016x}", rand::random::<u64>()));
    let body = key.path().as_bytes().to_vec();
    store.put(&key, body.clone()).await.map_err(failed("write", "writing", may.write))?;
    works("write");
    let back = store.get(&key).await.map_err(failed("read back", "reading", may.read))?;
    if back != body {
        let reason = "another content came back than was written: the store is not fit to hold anything";
        return Err(("read back", reason.into()));
    }
    works("read back");
    store.delete(&key).await.map_err(failed("delete", "deleting", may.delete))?;
    match store.size(&key).await {
        Ok(None) => works("delete"),
        Ok(Some(_)) => {
            let reason = format!("{} is still there; deleting must be allowed: {}", key.path(), may.delete);
            return Err(("delete", reason));
        }
        Err(e) => return Err(("delete", e.to_string())),
    }
    Ok(())
}

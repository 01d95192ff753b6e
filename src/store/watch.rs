//! What is asked of stores, said to whoever counts: how each request ended, how long it took, and how many bytes it moved.
//!
//! A request that the object layer sends again by itself is one request, as long as it takes.

use super::{Store, StoreError};
use std::time::Instant;

impl Store {
    /// Waits for the answer to something that is asked of the store, and tells how it ended.
    pub(super) async fn watched<T>(
        &self,
        operation: &'static str,
        asked: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let began = Instant::now();
        let answer = asked.await;
        self.observer.stored(operation, answer.as_ref().map_or_else(StoreError::outcome, |_| "ok"), began.elapsed());
        answer
    }
}

impl StoreError {
    /// A short, bounded name for a metric's label.
    pub(super) fn outcome(&self) -> &'static str {
        match self {
            StoreError::Missing(_) => "missing",
            StoreError::Denied { .. } => "denied",
            StoreError::Malformed { .. } => "malformed",
            StoreError::Failed { .. } => "failed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::JobId;
    use crate::observe::Observer;
    use crate::store::key::Key;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    #[derive(Default)]
    struct Notes {
        asked: Mutex<Vec<(&'static str, &'static str)>>,
        bytes: Mutex<(u64, u64)>,
    }

    impl Observer for Notes {
        fn stored(&self, operation: &'static str, outcome: &'static str, _took: Duration) {
            self.asked.lock().unwrap().push((operation, outcome));
        }

        fn store_read(&self, bytes: u64) {
            self.bytes.lock().unwrap().0 += bytes;
        }

        fn store_written(&self, bytes: u64) {
            self.bytes.lock().unwrap().1 += bytes;
        }
    }

    #[tokio::test]
    async fn every_request_is_told_with_its_end_and_the_bytes_it_moved() {
        let (dir, notes) = (tempfile::tempdir().unwrap(), Arc::new(Notes::default()));
        let store = Store::folder(&dir.path().join("work"), &dir.path().join("tmp")).unwrap();
        let store = Store { observer: notes.clone(), ..store };
        let key = Key::job(&JobId::try_from("talk".to_string()).unwrap());
        assert!(store.get(&key).await.is_err());
        store.put(&key, b"seven b".to_vec()).await.unwrap();
        assert_eq!(store.get(&key).await.unwrap().len(), 7);
        assert_eq!(store.ranged(&key).await.unwrap().read(0, 9).await.unwrap().len(), 7);
        store.list("jobs/").await.unwrap();
        store.delete(&key).await.unwrap();
        let asked = notes.asked.lock().unwrap().clone();
        let expected = [
            ("get", "missing"),
            // What was written is asked for: it is there when the store says so.
            ("stat", "ok"),
            ("put", "ok"),
            ("get", "ok"),
            ("stat", "ok"),
            ("read", "ok"),
            ("list", "ok"),
            ("delete", "ok"),
        ];
        assert_eq!(asked, expected);
        assert_eq!(*notes.bytes.lock().unwrap(), (14, 7));
    }
}

//! What is secret stays so: keys, and what customers put into their URLs.

use super::receiver::{Receiver, status};
use super::stage::{OLD_SECRET, SECRET, Stage, VOD_KEY, endpoint, job};
use narrows::broker::{Broker, Queue};
use narrows::callback::EndpointId;
use narrows::job::{Callback, CallbackFormat};
use narrows::store::key::Key;
use std::io::Write;
use std::sync::{Arc, Mutex};
use tracing_subscriber::fmt::MakeWriter;

#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Page {
    type Writer = Page;

    fn make_writer(&self) -> Page {
        self.clone()
    }
}

/// Everything that is logged at any level, of every crate that logs, while callbacks arrive, fail, are refused, given up
/// and disabled.
#[tokio::test]
async fn no_key_and_no_path_of_a_url_is_logged_or_kept_outside_the_job() {
    let page = Page::default();
    let writer = page.clone();
    tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(writer).with_ansi(false).init();
    let (mut stage, mut receiver) = (Stage::new(), Receiver::start().await);
    stage.settings.schedule_s = vec![0, 0];
    let talk = job("talk");
    let hook = |url: String| endpoint(&url);
    let arrives = hook(receiver.url("/arrives-hunter2?token=hunter2"));
    let fails = hook(receiver.url("/fails-hunter2?token=hunter2"));
    let gone = Callback { format: CallbackFormat::Vod2017, ..hook(receiver.url("/gone?token=hunter2")) };
    let refused = [
        hook("http://10.0.0.1/hunter2?token=hunter2".into()),
        hook("http://me:hunter2@127.0.0.1/".into()),
        hook("http://127.0.0.1:1/hunter2?token=hunter2".into()),
        hook("http://127.0.0.1:59999/hunter2?token=hunter2".into()),
        hook("ftp://127.0.0.1/hunter2".into()),
        hook("http://no-such-host.invalid/hunter2?token=hunter2".into()),
        hook("hunter2".into()),
    ];
    let all: Vec<Callback> = [arrives.clone(), fails.clone(), gone.clone()].into_iter().chain(refused.clone()).collect();
    stage.accept(&talk, &all).await;
    stage.record_all(&talk, 1).await;
    let running = stage.run(&talk);
    stage.nudge(&talk, std::slice::from_ref(&arrives)).await;
    stage.cursor_when(&talk, &arrives, |c| c.delivered == 1).await;
    receiver.script([status(500), status(500), status(410)]);
    for endpoint in [&fails, &gone].into_iter().chain(&refused) {
        stage.nudge(&talk, std::slice::from_ref(endpoint)).await;
        stage.cursor_when(&talk, endpoint, |c| c.exhausted == 1 || c.disabled).await;
    }
    stage.broker.publish(Queue::callbacks_of("talk"), b"not a nudge".to_vec()).await.unwrap();
    let mut dead = stage.broker.consume(Queue::Dead, 1).await.unwrap();
    dead.next().await.unwrap().ack().await.unwrap();
    running.stop().await;
    assert_eq!(receiver.rest().len(), 4);

    let logged = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
    for expected in ["callback given up", "callback failed; again", "disabled", "callback delivered", "delivery rejected"] {
        assert!(logged.contains(expected), "{expected} is not in the log, which therefore proves nothing:\n{logged}");
    }
    let mut kept = logged;
    for endpoint in &all {
        let id = EndpointId::of(endpoint);
        for key in
            [Key::cursor(&talk, id.as_str()), Key::exhausted("acme", &talk, id.as_str(), 1), Key::disabled("acme", id.as_str())]
        {
            if stage.exists(&key).await {
                kept.push_str(&String::from_utf8(stage.store.get(&key).await.unwrap()).unwrap());
            }
        }
    }
    kept.push_str(&format!("{:?} {:?}", stage.tenant, all));
    assert!(kept.contains("given_up_at"));
    for secret in ["hunter2", &SECRET[6..], &OLD_SECRET[6..], VOD_KEY] {
        let at = kept.find(secret);
        assert!(at.is_none(), "{secret}: ...{}...", &kept[at.unwrap().saturating_sub(300)..][..400]);
    }
}

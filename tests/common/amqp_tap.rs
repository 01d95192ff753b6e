//! Counts the methods (AMQP 0-9-1 2.3.5) that pass through a proxy: what a part costs the broker.

use super::proxy::{Tap, Taps};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// How often each method passed, by name; those without one here are `other`.
#[derive(Clone, Default)]
pub struct Methods(Arc<Mutex<BTreeMap<&'static str, u64>>>);

impl Methods {
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// For a proxy that counts here.
    pub fn taps(&self) -> Box<Taps> {
        let methods = self.clone();
        Box::new(move || {
            let tap = |skip| Box::new(Frames { methods: methods.clone(), skip, head: Vec::new() });
            // A client begins with the protocol's name, which is no frame.
            (tap(8), tap(0))
        })
    }

    fn count(&self, class: u16, method: u16) {
        let name = match (class, method) {
            (60, 40) => "publish",
            (60, 60) => "deliver",
            (60, 70) => "get",
            (60, 71) => "get-ok",
            (60, 72) => "get-empty",
            (60, 80) => "ack",
            (60, 20) => "consume",
            (60, 30) => "cancel",
            _ => "other",
        };
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).entry(name).or_default() += 1;
    }
}

/// Walks over the frames of one direction: type, channel, size, payload, end.
struct Frames {
    methods: Methods,
    /// Bytes of the present frame that do not matter.
    skip: usize,
    head: Vec<u8>,
}

/// Bytes before the payload, and of a method's own number in it.
const HEAD: usize = 7;
const METHOD: usize = 4;

impl Tap for Frames {
    fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let wanted = (HEAD + METHOD).saturating_sub(self.head.len()).min(bytes.len());
            if self.skip > 0 || wanted == 0 && self.head.len() < HEAD + METHOD {
                continue;
            }
            self.head.extend_from_slice(&bytes[..wanted]);
            bytes = &bytes[wanted..];
            self.frame();
        }
    }
}

impl Frames {
    fn frame(&mut self) {
        if self.head.len() < HEAD {
            return;
        }
        let size = u32::from_be_bytes([self.head[3], self.head[4], self.head[5], self.head[6]]) as usize;
        let is_method = self.head[0] == 1;
        // Headers and bodies are only walked over; a heartbeat has no payload at all.
        let needed = if is_method { HEAD + METHOD } else { HEAD };
        if self.head.len() < needed {
            return;
        }
        if is_method {
            let number = |at: usize| u16::from_be_bytes([self.head[at], self.head[at + 1]]);
            self.methods.count(number(HEAD), number(HEAD + 2));
        }
        let rest = HEAD + size + 1;
        let mut kept = std::mem::take(&mut self.head);
        if kept.len() > rest {
            // A short frame was read over: what follows begins the next one.
            self.head = kept.split_off(rest);
            self.frame();
        } else {
            self.skip = rest - kept.len();
        }
    }
}

//! Blocks of sources, shared by all readers of a process and bounded for all of them together.
//!
//! Parts of one job read the same bytes: every child reads an MP4's index, and neighbouring chunks share the frames at
//! their seam. Media is read once and never again, so a plain least-recently-used cache would hold media and lose the
//! index. This one has two queues (after Johnson and Shasha, "2Q", VLDB 1994): what was fetched passes through
//! `recent`, first in, first out; what a second reader asked for meanwhile, or what is fetched again soon after it
//! left, is `kept`.

use opendal::Buffer;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of one block. Blocks start at multiples of it.
pub const BLOCK_BYTES: u64 = 64 * 1024;
/// Blocks that were fetched last, over all sources: 32 MiB.
const RECENT_BLOCKS: usize = 512;
/// Blocks that several readers asked for: 32 MiB.
const KEPT_BLOCKS: usize = 512;
/// Blocks that were here: 64 bytes or so each, for 512 MiB of source.
const REMEMBERED: usize = 8192;

/// Which block of which object, as it was when it was opened.
type BlockId = (Arc<str>, u64);

/// Blocks of all sources of one process.
#[derive(Default)]
pub struct BlockCache {
    inner: Mutex<Inner>,
    fetched: AtomicU64,
    requests: AtomicU64,
}

#[derive(Default)]
struct Inner {
    blocks: HashMap<BlockId, Block>,
    /// By the time of arrival.
    recent: BTreeMap<u64, BlockId>,
    /// By the time of last use.
    kept: BTreeMap<u64, BlockId>,
    /// Names of blocks that have left `recent`, by the time they left.
    gone: BTreeMap<u64, BlockId>,
    left_at: HashMap<BlockId, u64>,
    clock: u64,
}

struct Block {
    content: Buffer,
    at: u64,
    kept: bool,
    /// Who fetched it, and has anybody else asked for it?
    reader: u64,
    shared: bool,
}

impl BlockCache {
    /// A block, when it is here. `reader` is who asks.
    pub(super) fn get(&self, object: &Arc<str>, block: u64, reader: u64) -> Option<Buffer> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let inner = &mut *inner;
        let id = (object.clone(), block);
        let found = inner.blocks.get_mut(&id)?;
        found.shared |= found.reader != reader;
        if found.kept {
            inner.clock += 1;
            inner.kept.remove(&found.at);
            found.at = inner.clock;
            inner.kept.insert(found.at, id);
        }
        Some(found.content.clone())
    }

    pub(super) fn has(&self, object: &Arc<str>, block: u64) -> bool {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.blocks.contains_key(&(object.clone(), block))
    }

    pub(super) fn put(&self, object: &Arc<str>, block: u64, reader: u64, content: Buffer) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.put((object.clone(), block), reader, content);
    }

    pub(super) fn count(&self, bytes: u64) {
        self.fetched.fetch_add(bytes, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes asked of all stores for sources so far.
    pub fn fetched_bytes(&self) -> u64 {
        self.fetched.load(Ordering::Relaxed)
    }

    /// Range requests so far.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

impl Inner {
    fn put(&mut self, id: BlockId, reader: u64, content: Buffer) {
        if self.blocks.contains_key(&id) {
            return;
        }
        self.clock += 1;
        let at = self.clock;
        if let Some(left_at) = self.left_at.remove(&id) {
            self.gone.remove(&left_at);
            self.keep(id, Block { content, at, kept: true, reader, shared: true });
        } else {
            self.recent.insert(at, id.clone());
            self.blocks.insert(id, Block { content, at, kept: false, reader, shared: false });
        }
        while self.recent.len() > RECENT_BLOCKS {
            let Some((_, id)) = self.recent.pop_first() else { break };
            let Some(block) = self.blocks.remove(&id) else { continue };
            if block.shared { self.keep(id, block) } else { self.remember(id) }
        }
    }

    fn keep(&mut self, id: BlockId, mut block: Block) {
        self.clock += 1;
        (block.at, block.kept) = (self.clock, true);
        // A copy of its own: what came is a slice of a longer read, and would hold all of it.
        block.content = Buffer::from(block.content.to_vec());
        self.kept.insert(block.at, id.clone());
        self.blocks.insert(id, block);
        while self.kept.len() > KEPT_BLOCKS {
            let Some((_, id)) = self.kept.pop_first() else { break };
            self.blocks.remove(&id);
        }
    }

    fn remember(&mut self, id: BlockId) {
        self.clock += 1;
        self.gone.insert(self.clock, id.clone());
        self.left_at.insert(id, self.clock);
        while self.gone.len() > REMEMBERED {
            let Some((_, id)) = self.gone.pop_first() else { break };
            self.left_at.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(n: u64) -> Buffer {
        Buffer::from(vec![n as u8; 16])
    }

    #[test]
    fn what_two_readers_ask_for_outlasts_any_length_of_media() {
        let (cache, film) = (BlockCache::default(), Arc::from("film"));
        cache.put(&film, 0, 1, block(0));
        assert!(cache.get(&film, 0, 2).is_some());
        for n in 1..10 * RECENT_BLOCKS as u64 {
            cache.put(&film, n, 1, block(n));
            assert!(cache.get(&film, n, 1).is_some());
        }
        assert_eq!(cache.get(&film, 0, 3).map(|b| b.to_vec()), Some(vec![0; 16]));
        assert!(!cache.has(&film, 1), "media that one reader asked for has gone");
    }

    #[test]
    fn what_is_fetched_a_second_time_stays() {
        let (cache, film) = (BlockCache::default(), Arc::from("film"));
        let pass = |reader| (0..2 * RECENT_BLOCKS as u64).for_each(|n| cache.put(&film, 1000 + n, reader, block(n)));
        cache.put(&film, 0, 1, block(0));
        pass(1);
        assert!(!cache.has(&film, 0));
        cache.put(&film, 0, 2, block(0));
        let other = Arc::from("other");
        (0..4 * RECENT_BLOCKS as u64).for_each(|n| cache.put(&other, n, 3, block(n)));
        assert!(cache.has(&film, 0));
    }

    #[test]
    fn memory_is_bounded_whatever_is_read() {
        let cache = BlockCache::default();
        let films: Vec<Arc<str>> = (0..5).map(|n| Arc::from(format!("film {n}"))).collect();
        let mut state = 1_u64;
        for step in 0..200_000_u64 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (film, n) = (&films[(state >> 33) as usize % 5], (state >> 40) % 4000);
            match cache.get(film, n, step % 7) {
                Some(content) => assert_eq!(content.to_vec(), vec![n as u8; 16]),
                None => cache.put(film, n, step % 7, block(n)),
            }
        }
        let inner = cache.inner.lock().unwrap();
        assert_eq!(inner.blocks.len(), inner.recent.len() + inner.kept.len());
        assert!(inner.recent.len() <= RECENT_BLOCKS && inner.kept.len() <= KEPT_BLOCKS);
        assert!(inner.gone.len() == inner.left_at.len() && inner.gone.len() <= REMEMBERED);
    }
}

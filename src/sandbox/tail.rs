//! The last words of a child, bounded.

use std::collections::VecDeque;

/// Keeps the last `limit` bytes of what it is given.
pub(super) struct Tail {
    bytes: VecDeque<u8>,
    limit: usize,
}

impl Tail {
    pub(super) fn new(limit: usize) -> Self {
        Tail { bytes: VecDeque::new(), limit }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        let fresh = &bytes[bytes.len().saturating_sub(self.limit)..];
        let surplus = (self.bytes.len() + fresh.len()).saturating_sub(self.limit);
        self.bytes.drain(..surplus);
        self.bytes.extend(fresh);
    }

    /// As text fit for a log: what is not UTF-8 is replaced, control characters other than newline and tab are dropped.
    pub(super) fn text(&self) -> String {
        let (front, back) = self.bytes.as_slices();
        let bytes = [front, back].concat();
        String::from_utf8_lossy(&bytes).chars().filter(|c| matches!(c, '\n' | '\t') || !c.is_control()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_kept_and_terminals_are_not_spoken_to() {
        let mut tail = Tail::new(8);
        tail.push(b"a long beginning, then ");
        tail.push(b"\x1b[2J\xffok\n");
        assert_eq!(tail.text(), "[2J\u{fffd}ok\n");
        tail.push(b"123456789");
        assert_eq!(tail.text(), "23456789");
        let mut nothing = Tail::new(0);
        nothing.push(b"abc");
        assert_eq!(nothing.text(), "");
    }
}

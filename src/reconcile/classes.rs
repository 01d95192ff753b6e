//! Which markers and which messages count, of a job that may be encoded in more than one class. Pure.
//!
//! A job begins in one class and may fall back to software, once. Chunks have markers of their own in each class; only those of
//! the class in force count, so no title is ever made of two encoders, whatever is late, doubled or lost.

use super::before;
use crate::job::Class;
use crate::plan::Plan;
use crate::plan::marker::PartId;
use std::collections::BTreeSet;

/// What becomes of a part that came by the wrong queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misplaced {
    /// Nobody needs it any more: whoever wrote that the job fell back asked for its chunks anew, and the sweep does if they
    /// died over it.
    Stale,
    /// It belongs there.
    To(Class),
}

/// Does a part belong where it came from? By the class that its job began with, and the one in force.
pub fn misplaced(part: PartId, came_by: Class, began_with: Class, in_force: Class) -> Option<Misplaced> {
    let belongs = part.class(in_force);
    if belongs == came_by {
        return None;
    }
    let is_stale = part.encodes() && came_by == began_with;
    Some(if is_stale { Misplaced::Stale } else { Misplaced::To(belongs) })
}

/// What is done of a job in a class: of the parts that software did, all that are of no class, and the chunks of this one.
pub fn counted(software: BTreeSet<PartId>, on_device: BTreeSet<PartId>, class: Class) -> BTreeSet<PartId> {
    if !class.is_device() {
        return software;
    }
    let of_no_class = software.into_iter().filter(|part| !part.encodes());
    of_no_class.chain(on_device.into_iter().filter(|part| part.encodes())).collect()
}

/// Do chunks wait that should be encoded by now?
pub fn waits_for_encoders(plan: &Plan, done: &BTreeSet<PartId>, window: u32) -> bool {
    done.contains(&PartId::Probe) && super::missing(plan, done, window).iter().any(|part| part.encodes())
}

/// Is everything there that is packaged?
pub fn may_package(plan: &Plan, done: &BTreeSet<PartId>) -> bool {
    before(plan, PartId::Package).iter().all(|part| done.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_came_by_the_wrong_queue_is_passed_on_unless_nobody_needs_it() {
        use Class::{Cpu, Nvenc, Vaapi};
        let of = |part, came_by, in_force| misplaced(part, came_by, Nvenc, in_force);
        assert_eq!(of(PartId::Encode(3), Nvenc, Nvenc), None);
        assert_eq!(of(PartId::Encode(3), Nvenc, Cpu), Some(Misplaced::Stale), "it fell back");
        assert_eq!(of(PartId::Encode(3), Cpu, Cpu), None);
        assert_eq!(of(PartId::Encode(3), Cpu, Nvenc), Some(Misplaced::To(Nvenc)));
        assert_eq!(of(PartId::Encode(3), Vaapi, Nvenc), Some(Misplaced::To(Nvenc)));
        assert_eq!(of(PartId::Audio(0), Nvenc, Nvenc), Some(Misplaced::To(Cpu)));
        assert_eq!(of(PartId::Package, Cpu, Nvenc), None);
    }

    #[test]
    fn no_chunk_of_another_class_counts() {
        let software = BTreeSet::from([PartId::Probe, PartId::Audio(0), PartId::Encode(1)]);
        let on_device = BTreeSet::from([PartId::Encode(0)]);
        let of = |class| counted(software.clone(), on_device.clone(), class);
        assert_eq!(of(Class::Cpu), software);
        assert_eq!(of(Class::Nvenc), BTreeSet::from([PartId::Probe, PartId::Audio(0), PartId::Encode(0)]));
    }
}

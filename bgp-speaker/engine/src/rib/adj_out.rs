//! What one peer has been sent of one family, and what still has to be looked at.
use std::collections::{BTreeSet, VecDeque};

use super::intern::AttrId;

const NONE: u32 = 0;
/// The peer has asked to hear it again.
const AGAIN: u32 = 1 << 31;

/// Adj-RIB-Out, indexed by the numbers of slots.
#[derive(Debug, Default)]
pub(crate) struct AdjOut {
    /// For each slot: nothing, or the number of the attributes that were sent plus one.
    sent: Vec<u32>,
    dirty: VecDeque<u32>,
    is_dirty: Vec<bool>,
    /// How many prefixes the peer has been sent and has not been told to forget.
    pub(crate) count: usize,
    pub(crate) end_of_rib_sent: bool,
    /// Slots whose route wants a next hop that we do not have.
    hopless: BTreeSet<u32>,
    /// The operator has been told so.
    pub(crate) hopless_told: bool,
}

impl AdjOut {
    /// Looks at a slot again at the next flush.
    pub(crate) fn mark(&mut self, id: u32) {
        let at = id as usize;
        if self.is_dirty.len() <= at {
            self.is_dirty.resize(at + 1, false);
        }
        if !std::mem::replace(&mut self.is_dirty[at], true) {
            self.dirty.push_back(id);
        }
    }

    /// Up to `limit` slots to look at, oldest first.
    pub(crate) fn take_dirty(&mut self, limit: usize) -> Vec<u32> {
        let taken: Vec<u32> = self.dirty.drain(..limit.min(self.dirty.len())).collect();
        taken.iter().for_each(|id| self.is_dirty[*id as usize] = false);
        taken
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.dirty.is_empty()
    }

    /// What was sent for a slot.
    pub(crate) fn sent(&self, id: u32) -> Option<AttrId> {
        match self.sent.get(id as usize).map(|word| word & !AGAIN) {
            None | Some(NONE) => None,
            Some(word) => Some(AttrId(word - 1)),
        }
    }

    /// Whether the peer has asked to hear a slot again.
    pub(crate) fn again(&self, id: u32) -> bool {
        self.sent.get(id as usize).is_some_and(|word| word & AGAIN != 0)
    }

    /// Notes what was sent for a slot. The caller counts uses of attributes and slots.
    pub(crate) fn set(&mut self, id: u32, attr: Option<AttrId>) {
        let at = id as usize;
        if self.sent.len() <= at {
            self.sent.resize(at + 1, NONE);
        }
        let had = self.sent[at] & !AGAIN != NONE;
        self.sent[at] = attr.map_or(NONE, |attr| attr.0 + 1);
        self.count = self.count + usize::from(attr.is_some()) - usize::from(had);
    }

    /// Notes whether the route of a slot wants a next hop that we do not have.
    pub(crate) fn set_hopless(&mut self, id: u32, hopless: bool) {
        if hopless {
            self.hopless.insert(id);
        } else if !self.hopless.is_empty() {
            self.hopless.remove(&id);
            self.hopless_told &= !self.hopless.is_empty();
        }
    }

    /// How many routes want a next hop that we do not have.
    pub(crate) fn hopless(&self) -> usize {
        self.hopless.len()
    }

    /// Everything that was sent has to be sent again.
    pub(crate) fn mark_all_again(&mut self) {
        for at in 0..self.sent.len() {
            if self.sent[at] != NONE {
                self.sent[at] |= AGAIN;
                self.mark(u32::try_from(at).unwrap_or(u32::MAX));
            }
        }
        self.end_of_rib_sent = false;
    }

    /// Every slot with something sent.
    pub(crate) fn all_sent(&self) -> impl Iterator<Item = (u32, AttrId)> + '_ {
        (0..u32::try_from(self.sent.len()).unwrap_or(u32::MAX)).filter_map(|id| Some((id, self.sent(id)?)))
    }
}

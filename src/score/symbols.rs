//! Distinct strings stored once, each known by a small number.

use std::hash::{BuildHasher, RandomState};

const EMPTY: u32 = u32::MAX;

/// A set of distinct strings in order of first appearance; the n-th string is symbol n.
///
/// All text lies in one buffer and the hash table holds only symbols, so a string costs its bytes and about
/// sixteen more. Memory ends long before the 2^32 - 1 symbols that the numbering allows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Symbols {
    text: String,
    ends: Vec<usize>,
    slots: Vec<u32>,
    hasher: RandomState,
}

impl Symbols {
    /// Number of distinct strings.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The string of a symbol that this set gave out.
    pub(crate) fn get(&self, symbol: u32) -> &str {
        let index = symbol as usize;
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.text[start..self.ends[index]]
    }

    /// The symbol of a string that is in the set.
    pub(crate) fn find(&self, text: &str) -> Option<u32> {
        if self.slots.is_empty() {
            return None;
        }
        let symbol = self.slots[self.slot(text)];
        (symbol != EMPTY).then_some(symbol)
    }

    /// The symbol of a string, which is added where it is new.
    pub(crate) fn intern(&mut self, text: &str) -> u32 {
        if (self.len() + 1) * 2 > self.slots.len() {
            self.grow();
        }
        let slot = self.slot(text);
        if self.slots[slot] == EMPTY {
            self.slots[slot] = self.len() as u32;
            self.text.push_str(text);
            self.ends.push(self.text.len());
        }
        self.slots[slot]
    }

    /// Gives back the memory kept for further strings.
    pub(crate) fn shrink_to_fit(&mut self) {
        self.text.shrink_to_fit();
        self.ends.shrink_to_fit();
    }

    /// The slot that holds the string, or the free one where it belongs.
    fn slot(&self, text: &str) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = self.hasher.hash_one(text) as usize & mask;
        while self.slots[slot] != EMPTY && self.get(self.slots[slot]) != text {
            slot = (slot + 1) & mask;
        }
        slot
    }

    fn grow(&mut self) {
        let mask = (self.slots.len() * 2).max(64) - 1;
        let mut slots = vec![EMPTY; mask + 1];
        for symbol in 0..self.len() as u32 {
            let mut slot = self.hasher.hash_one(self.get(symbol)) as usize & mask;
            while slots[slot] != EMPTY {
                slot = (slot + 1) & mask;
            }
            slots[slot] = symbol;
        }
        self.slots = slots;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_keep_their_symbols_while_the_table_grows() {
        let mut symbols = Symbols::default();
        assert_eq!(symbols.find(""), None);
        for round in 0..2 {
            for number in 0..1000 {
                assert_eq!(symbols.intern(&number.to_string()), number, "round {round}");
            }
        }
        assert_eq!((symbols.len(), symbols.intern(""), symbols.get(999), symbols.get(1000)), (1000, 1000, "999", ""));
        assert_eq!((symbols.find("17"), symbols.find("x")), (Some(17), None));
    }
}

//! Sorted keys made quick to search.
//!
//! Keys lie all over the memory, and most of what a search costs is waiting for them. The keys of
//! a store begin alike for long stretches; so the few bytes behind what a list of keys has in
//! common are kept beside each other, and a search reads these, then one key or two.

use std::cmp::Ordering;

/// What is kept of a list of ascending keys; the list itself lies with the owner.
#[derive(Debug, Default)]
pub(crate) struct KeyHeads {
    /// Every key begins with it.
    prefix: Vec<u8>,
    /// The eight bytes of each key behind the prefix, as [`head_of`] makes them.
    heads: Vec<u64>,
}

impl KeyHeads {
    /// Of these keys, ascending.
    pub(crate) fn of<'a>(len: usize, key_at: impl Fn(usize) -> &'a [u8]) -> Self {
        let Some(last) = len.checked_sub(1) else {
            return Self::default();
        };
        let first = key_at(0);
        let common = common_len(first, key_at(last));
        Self {
            prefix: first[..common].to_vec(),
            heads: (0..len).map(|at| head_of(&key_at(at)[common..])).collect(),
        }
    }

    /// Where `key` is (`Ok`) or would be put (`Err`).
    pub(crate) fn search<'a>(
        &self,
        key: &[u8],
        key_at: impl Fn(usize) -> &'a [u8],
    ) -> Result<usize, usize> {
        let Some(rest) = key.strip_prefix(&self.prefix[..]) else {
            let below = key < &self.prefix[..];
            return Err(if below { 0 } else { self.heads.len() });
        };
        let head = head_of(rest);
        let mut from = self.heads.partition_point(|other| *other < head);
        // Those with the same head have to be looked at as a whole; mostly there is one, or none.
        let mut until = from;
        if self.heads.get(from) == Some(&head) {
            until += self.heads[from..].partition_point(|other| *other == head);
        }
        while from < until {
            let middle = from.midpoint(until);
            match key_at(middle).cmp(key) {
                Ordering::Less => from = middle + 1,
                Ordering::Equal => return Ok(middle),
                Ordering::Greater => until = middle,
            }
        }
        Err(from)
    }

    /// The list has got a new key at `at`.
    pub(crate) fn insert<'a>(&mut self, at: usize, key_at: impl Fn(usize) -> &'a [u8]) {
        let key = key_at(at);
        if self.heads.is_empty() {
            self.prefix = key.to_vec();
        }
        let common = common_len(&self.prefix, key);
        self.heads.insert(at, head_of(&key[common..]));
        if common < self.prefix.len() {
            *self = Self::of(self.heads.len(), key_at);
        }
    }

    /// The key at `at` is gone from the list.
    pub(crate) fn remove(&mut self, at: usize) {
        self.heads.remove(at);
    }
}

/// The first eight bytes as a number that orders as they do, zeros for those that are not there:
/// of two keys, the lesser has the lesser head or the same.
fn head_of(key: &[u8]) -> u64 {
    let mut head = [0; 8];
    let len = key.len().min(head.len());
    head[..len].copy_from_slice(&key[..len]);
    u64::from_be_bytes(head)
}

fn common_len(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys() -> impl Strategy<Value = Vec<Vec<u8>>> {
        // Long common beginnings, heads that are equal, and zeros, which fill up a head.
        let key = "(abcdefgh|abcdefg)?[ab\0]{0,12}";
        prop::collection::vec(key.prop_map(String::into_bytes), 0..40)
    }

    proptest! {
        #[test]
        fn finds_what_a_binary_search_over_the_keys_finds(
            added in keys(),
            removed in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
            sought in keys(),
        ) {
            let (mut list, mut heads) = (Vec::<Vec<u8>>::new(), KeyHeads::default());
            for key in added {
                let at = heads.search(&key, |at| &list[at]);
                prop_assert_eq!(at, list.binary_search(&key));
                if let Err(at) = at {
                    list.insert(at, key);
                    heads.insert(at, |at| &list[at]);
                }
            }
            for at in removed {
                if !list.is_empty() {
                    let at = at.index(list.len());
                    list.remove(at);
                    heads.remove(at);
                }
            }
            let anew = KeyHeads::of(list.len(), |at| &list[at]);
            for key in sought.iter().chain(&list) {
                prop_assert_eq!(heads.search(key, |at| &list[at]), list.binary_search(key));
                prop_assert_eq!(anew.search(key, |at| &list[at]), list.binary_search(key));
            }
        }
    }
}

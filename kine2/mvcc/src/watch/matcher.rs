//! Which watchers a key concerns.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::key_range::{KeyRange, RangeEnd};

/// A watcher among all of the hub.
pub(super) type WatcherKey = u64;

/// Watchers by what they watch. A key is looked up once for itself, once for each length of
/// prefix in use, and compared with the few ranges that are neither.
#[derive(Debug, Default)]
pub(super) struct Matcher {
    keys: BTreeMap<Bytes, BTreeSet<WatcherKey>>,
    prefixes: BTreeMap<usize, BTreeMap<Bytes, BTreeSet<WatcherKey>>>,
    ranges: BTreeMap<WatcherKey, KeyRange>,
}

impl Matcher {
    pub(super) fn insert(&mut self, watcher: WatcherKey, range: &KeyRange) {
        if range.is_single() {
            self.keys
                .entry(range.start.clone())
                .or_default()
                .insert(watcher);
        } else if is_prefix(range) {
            let same_len = self.prefixes.entry(range.start.len()).or_default();
            same_len
                .entry(range.start.clone())
                .or_default()
                .insert(watcher);
        } else {
            self.ranges.insert(watcher, range.clone());
        }
    }

    pub(super) fn remove(&mut self, watcher: WatcherKey, range: &KeyRange) {
        if range.is_single() {
            remove_from(&mut self.keys, &range.start, watcher);
        } else if is_prefix(range) {
            let len = range.start.len();
            if let Some(same_len) = self.prefixes.get_mut(&len) {
                remove_from(same_len, &range.start, watcher);
                if same_len.is_empty() {
                    self.prefixes.remove(&len);
                }
            }
        } else {
            self.ranges.remove(&watcher);
        }
    }

    /// Shows each watcher that `key` concerns, once.
    pub(super) fn visit(&self, key: &[u8], mut visit: impl FnMut(WatcherKey)) {
        for watcher in self.keys.get(key).into_iter().flatten() {
            visit(*watcher);
        }
        for (len, same_len) in self.prefixes.range(..=key.len()) {
            for watcher in same_len.get(&key[..*len]).into_iter().flatten() {
                visit(*watcher);
            }
        }
        for (watcher, range) in &self.ranges {
            if range.contains(key) {
                visit(*watcher);
            }
        }
    }
}

fn remove_from(
    sets: &mut BTreeMap<Bytes, BTreeSet<WatcherKey>>,
    name: &Bytes,
    watcher: WatcherKey,
) {
    if let Some(set) = sets.get_mut(name) {
        set.remove(&watcher);
        if set.is_empty() {
            sets.remove(name);
        }
    }
}

/// Whether the range is all keys that begin with its start: the end is the start with its last
/// byte one higher.
fn is_prefix(range: &KeyRange) -> bool {
    let RangeEnd::Before(end) = &range.end else {
        return false;
    };
    let (Some((end_last, end_head)), Some((start_last, start_head))) =
        (end.split_last(), range.start.split_last())
    else {
        return false;
    };
    end_head == start_head && start_last.checked_add(1) == Some(*end_last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matched(matcher: &Matcher, key: &str) -> Vec<WatcherKey> {
        let mut found = Vec::new();
        matcher.visit(key.as_bytes(), |watcher| found.push(watcher));
        found
    }

    #[test]
    fn keys_prefixes_and_other_ranges_are_found_and_forgotten() {
        let forms = [
            ("a/b", ""),
            ("a/", "a0"),
            ("a/a", "a/z"),
            ("a", "\0"),
            ("a", "b"),
            ("b", ""),
        ];
        let range = |(start, end): (&'static str, &'static str)| {
            KeyRange::from_wire(Bytes::from(start), Bytes::from(end))
        };
        let mut matcher = Matcher::default();
        for (watcher, form) in (0..).zip(forms) {
            matcher.insert(watcher, &range(form));
        }
        assert_eq!(matched(&matcher, "a/b"), [0, 4, 1, 2, 3]);
        assert_eq!(matched(&matcher, "b"), [5, 3]);
        assert_eq!(matched(&matcher, ""), []);
        for (watcher, form) in (0..).zip(forms) {
            matcher.remove(watcher, &range(form));
        }
        assert_eq!(matched(&matcher, "a/b"), []);
        assert!(matcher.prefixes.is_empty() && matcher.keys.is_empty());
    }
}

//! A page of history: whole transactions within a limit.

use std::ops::ControlFlow;

use kine2_mvcc::{ChangeId, Revision};

/// Changes a read of history looks at before it stops early, found or not: some milliseconds.
pub(crate) const HISTORY_SCAN_MAX: usize = 10_000;

/// Decides change by change, ascending, what belongs to a page.
#[derive(Debug)]
pub(crate) struct Pager<T> {
    until: Revision,
    limit_bytes: usize,
    bytes: usize,
    seen: usize,
    /// Revision of the transaction that is being read, and how many items were there before it.
    current: Revision,
    before_current: usize,
    items: Vec<T>,
    next: Option<Revision>,
}

impl<T> Pager<T> {
    /// A page of changes before `until` with at most `limit_bytes`, but at least one transaction.
    pub(crate) const fn new(until: Revision, limit_bytes: usize) -> Self {
        Self {
            until,
            limit_bytes,
            bytes: 0,
            seen: 0,
            current: Revision(0),
            before_current: 0,
            items: Vec::new(),
            next: None,
        }
    }

    /// The next change: `item` with its bytes if the page is to have it. Breaks when the page is
    /// complete.
    pub(crate) fn offer(&mut self, id: ChangeId, item: Option<(T, usize)>) -> ControlFlow<()> {
        if id.main >= self.until {
            return ControlFlow::Break(());
        }
        if id.main != self.current {
            if self.seen >= HISTORY_SCAN_MAX {
                self.next = Some(id.main);
                return ControlFlow::Break(());
            }
            self.current = id.main;
            self.before_current = self.items.len();
        }
        self.seen += 1;
        if let Some((item, bytes)) = item {
            self.bytes += bytes;
            if self.bytes > self.limit_bytes && self.before_current > 0 {
                self.items.truncate(self.before_current);
                self.next = Some(self.current);
                return ControlFlow::Break(());
            }
            self.items.push(item);
        }
        ControlFlow::Continue(())
    }

    /// What the page has, and where to go on.
    pub(crate) fn finish(self) -> (Vec<T>, Option<Revision>) {
        (self.items, self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pages a list of `(main, bytes)`; 0 bytes: a change of another key.
    fn page(changes: &[(i64, usize)], until: i64, limit: usize) -> (Vec<i64>, Option<i64>) {
        let mut pager = Pager::new(Revision(until), limit);
        for (sub, (main, bytes)) in (0..).zip(changes) {
            let main = Revision(*main);
            let item = (*bytes > 0).then_some((main.0, *bytes));
            if pager.offer(ChangeId { main, sub }, item).is_break() {
                break;
            }
        }
        let (items, next) = pager.finish();
        (items, next.map(|next| next.0))
    }

    #[test]
    fn a_page_ends_between_transactions() {
        let changes = [(2, 5), (3, 5), (3, 5), (4, 0), (5, 5)];
        assert_eq!(page(&changes, 9, 100), (vec![2, 3, 3, 5], None));
        assert_eq!(page(&changes, 5, 100), (vec![2, 3, 3], None));
        assert_eq!(page(&changes, 9, 15), (vec![2, 3, 3], Some(5)));
        assert_eq!(page(&changes, 9, 14), (vec![2], Some(3)));
        assert_eq!(page(&changes, 9, 0), (vec![2], Some(3)));
        assert_eq!(page(&changes[1..], 9, 0), (vec![3, 3], Some(5)));
    }

    #[test]
    fn a_long_way_without_a_match_is_cut() {
        let end = i64::try_from(HISTORY_SCAN_MAX).unwrap();
        let changes: Vec<_> = (0..2 * end).map(|n| (2 + n, 0)).collect();
        assert_eq!(page(&changes, i64::MAX, 9), (vec![], Some(2 + end)));
        let one: Vec<_> = (0..2 * end).map(|_| (2, 0)).collect();
        assert_eq!(page(&one, i64::MAX, 9), (vec![], None));
    }
}

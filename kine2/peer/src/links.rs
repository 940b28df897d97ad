//! Which links to the peer are up, and which is the best.

use std::time::Duration;

use kine2_replication::Link;

/// A link that answered within this time is as good as any.
const FRESH: Duration = Duration::from_millis(250);

/// The links in the order of the configuration: the first that answers is the best.
#[derive(Debug)]
pub struct Links {
    links: Vec<OneLink>,
    told: Link,
}

#[derive(Clone, Copy, Debug, Default)]
struct OneLink {
    is_up: bool,
    /// When it last answered, while it is up.
    answered: Duration,
    /// Nobody listened there when it was tried last.
    refused: bool,
}

impl Links {
    /// So many links, all down.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self {
            links: vec![OneLink::default(); count],
            told: Link::Down,
        }
    }

    /// A connection on this link is up.
    pub fn on_up(&mut self, now: Duration, link: usize) {
        self.links[link] = OneLink {
            is_up: true,
            answered: now,
            refused: false,
        };
    }

    /// The peer answered on this link.
    pub fn on_answer(&mut self, now: Duration, link: usize) {
        self.links[link].answered = now;
    }

    /// The connection on this link ended.
    pub fn on_down(&mut self, link: usize) {
        self.links[link] = OneLink::default();
    }

    /// A new connection could not be made; `refused` if the peer's machine said that nobody
    /// listens.
    pub fn on_failed(&mut self, link: usize, refused: bool) {
        self.links[link].refused = refused;
    }

    /// Links that are up.
    pub fn up(&self) -> impl Iterator<Item = usize> {
        let up = |(at, link): (usize, &OneLink)| link.is_up.then_some(at);
        self.links.iter().enumerate().filter_map(up)
    }

    /// The link for what goes once: the first that answered lately, else the one that answered
    /// last.
    #[must_use]
    pub fn best(&self, now: Duration) -> Option<usize> {
        let is_fresh = |at: &usize| now.saturating_sub(self.links[*at].answered) <= FRESH;
        self.up()
            .find(is_fresh)
            .or_else(|| self.up().max_by_key(|at| self.links[*at].answered))
    }

    /// What the replication core is to be told, if it changed. An end is told before a refusal.
    pub fn take_change(&mut self) -> Option<Link> {
        let is_up = self.up().next().is_some();
        let refused = !self.links.is_empty() && self.links.iter().all(|link| link.refused);
        let next = match self.told {
            Link::Down | Link::Refused if is_up => Link::Up,
            Link::Up if !is_up => Link::Down,
            Link::Down if refused => Link::Refused,
            _ => return None,
        };
        self.told = next;
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_first_link_that_answers_is_the_best_and_is_gone_back_to() {
        let mut links = Links::new(2);
        assert_eq!(links.best(ms(0)), None);
        links.on_up(ms(0), 1);
        assert_eq!(links.best(ms(0)), Some(1));
        links.on_up(ms(10), 0);
        assert_eq!(links.best(ms(10)), Some(0));
        links.on_answer(ms(300), 1);
        assert_eq!(links.best(ms(300)), Some(1), "the first fell silent");
        links.on_answer(ms(350), 0);
        assert_eq!(links.best(ms(350)), Some(0), "it is back");
        assert_eq!(links.best(ms(5000)), Some(0), "all silent: the last heard");
        links.on_down(0);
        assert_eq!(links.best(ms(5000)), Some(1));
    }

    #[test]
    fn the_core_hears_of_the_end_of_all_links_and_of_a_refusal_on_all() {
        let mut links = Links::new(2);
        assert_eq!(links.take_change(), None);
        links.on_up(ms(0), 0);
        assert_eq!(links.take_change(), Some(Link::Up));
        links.on_up(ms(0), 1);
        assert_eq!(links.take_change(), None);
        links.on_down(0);
        links.on_failed(0, true);
        assert_eq!(links.take_change(), None, "the other is up");
        links.on_down(1);
        assert_eq!(links.take_change(), Some(Link::Down));
        assert_eq!(links.take_change(), None, "not refused on both");
        links.on_failed(1, true);
        assert_eq!(links.take_change(), Some(Link::Refused));
        links.on_up(ms(9), 1);
        assert_eq!(links.take_change(), Some(Link::Up));
        links.on_down(1);
        links.on_failed(1, true);
        assert_eq!(links.take_change(), Some(Link::Down));
        assert_eq!(links.take_change(), Some(Link::Refused));
    }
}

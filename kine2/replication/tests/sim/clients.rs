//! Clients: what they ask, and what they may be answered.

use bytes::Bytes;
use kine2_replication::{Answer, Event, LogIndex, Origin, PartName, RequestId, Standing, Unit};

use super::{Due, Request, Sim, ms};

impl Sim {
    pub(super) fn client(&mut self) {
        let after = ms(1 + self.rng.below(30));
        self.push(after, Due::Client);
        let n = self.rng.pick(2);
        let k = self.rng.pick(2);
        let part = self.parts[k].clone();
        if self.rng.percent(50) {
            self.write(n, part);
        } else {
            self.read(n, part);
        }
    }

    pub fn write(&mut self, n: usize, part: PartName) {
        self.next_request += 1;
        let request = RequestId(self.next_request);
        let payload = Bytes::from(format!("{}", self.next_request));
        if self.nodes[n].unit.is_none() || self.nodes[n].frozen_until > self.now {
            return;
        }
        let write = Request::Write(part.clone(), payload.clone());
        self.nodes[n].requests.insert(request, write);
        self.tell(
            n,
            Event::Propose {
                part,
                payload,
                request,
            },
        );
    }

    /// Writes through the node if it serves the part and no write waits there.
    pub fn write_if_served(&mut self, n: usize, part: &PartName) {
        let node = &self.nodes[n];
        let status = node.unit.as_ref().map(Unit::status);
        let served =
            status.is_some_and(|status| status.parts.get(part).is_some_and(|part| part.active));
        if served && node.requests.is_empty() {
            self.write(n, part.clone());
        }
    }

    pub fn read(&mut self, n: usize, part: PartName) {
        self.next_request += 1;
        let request = RequestId(self.next_request);
        let node = &self.nodes[n];
        if node.unit.is_none() {
            return;
        }
        if node.frozen_until > self.now {
            // It is the first that the node sees when it thaws.
            let wait = node.frozen_until - self.now;
            return self.push(wait, Due::LateRead(n, part));
        }
        let origin = node.unit.as_ref().map(Unit::origin).unwrap_or_default();
        // Of a promotion that is not durable yet nothing is exposed.
        let floor = match origin == Origin::NONE || self.origins.contains(&origin) {
            true => self.truth.exposed(&part, origin),
            false => LogIndex(0),
        };
        let read = Request::Read(part.clone(), floor, origin);
        self.nodes[n].requests.insert(request, read);
        self.tell(n, Event::Read { part, request });
    }

    pub(super) fn on_answer(
        &mut self,
        n: usize,
        origin: Origin,
        request: RequestId,
        answer: Answer,
    ) {
        let asked = self.nodes[n].requests.remove(&request);
        match (asked, answer) {
            (Some(Request::Write(part, payload)), Answer::Committed(index)) => {
                let live = &self.nodes[n].disks[&part].live;
                let position = live.position(index).expect("it was applied");
                if let Some(entry) = live.entry(index) {
                    assert_eq!(entry.payload, payload, "another write was committed");
                }
                assert!(
                    self.nodes[n].applied[&part] >= index,
                    "answered before applied"
                );
                self.truth.acknowledge(&part, position, origin);
            }
            (Some(Request::Read(part, floor, asked_in)), Answer::ReadAt(index)) => {
                assert!(self.nodes[n].applied[&part] >= index, "read before applied");
                if asked_in == origin {
                    self.truth.read(&part, floor, index);
                }
                let unit = self.nodes[n].unit.as_ref().unwrap();
                if unit.config().primary != self.nodes[n].me {
                    self.truth.counts.reads_at_secondary += 1;
                } else if unit.config().standing(&part) == Some(Standing::Mirror) {
                    self.truth.counts.reads_mirrored += 1;
                }
            }
            (_, Answer::Committed(_) | Answer::ReadAt(_)) => panic!("answer to nothing"),
            _ => {}
        }
    }
}

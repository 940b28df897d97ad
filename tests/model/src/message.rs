//! What the nodes tell each other. A message that is never delivered is a lost one; any order of delivery is tried.

use crate::state::{Config, Install, Log, Pair};

/// A frame of the peer link.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Message {
    /// The whole log of a part from `base` on; `log` below it only says what `base` stands for.
    Append {
        to: u8,
        config: Config,
        run: u8,
        part: u8,
        log: Log,
        base: u8,
        commit: u8,
    },
    Ack {
        to: u8,
        epoch: u8,
        run: u8,
        part: u8,
        index: u8,
    },
    Hello {
        to: u8,
        config: Config,
        run: u8,
    },
    HelloAck {
        to: u8,
        epoch: u8,
        run: u8,
        log: Pair<Log>,
        base: Pair<u8>,
    },
    ReadConfirm {
        to: u8,
        epoch: u8,
        run: u8,
        number: u8,
    },
    ReadConfirmAck {
        to: u8,
        epoch: u8,
        run: u8,
        number: u8,
    },
    ReadIndex {
        to: u8,
        epoch: u8,
        part: u8,
        number: u8,
    },
    ReadIndexReply {
        to: u8,
        epoch: u8,
        number: u8,
        index: u8,
    },
    Propose {
        to: u8,
        config: Config,
    },
    /// A state of a part at `install.index`, as a whole or one half of it; `log` is the sender's, whole.
    Snapshot {
        to: u8,
        config: Config,
        run: u8,
        part: u8,
        install: Install,
        log: Log,
        piece: Piece,
    },
}

/// How much of a snapshot a message carries.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Piece {
    /// All; installed beside the old state and switched to by one record.
    Whole,
    /// Its beginning, written in place.
    First,
    /// Its end.
    Last,
}

//! The words of transcripts as requests. A word that is not understood fails the test by name.

use bytes::Bytes;
use kine2_mvcc::{
    Compare, Delete, KeyRange, Operand, Put, RangeQuery, Relation, RevisionBounds, Sort, SortBy,
    Txn, TxnOp, WatchRequest,
};

/// A line: how far it is indented, and its words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line<'a> {
    pub(crate) indent: usize,
    pub(crate) text: &'a str,
}

impl<'a> Line<'a> {
    pub(crate) fn new(line: &'a str) -> Self {
        let text = line.trim_start();
        Self {
            indent: line.len() - text.len(),
            text,
        }
    }

    pub(crate) fn words(self) -> Words<'a> {
        Words {
            line: self.text,
            words: self.text.split_whitespace().collect(),
        }
    }
}

/// What is left of a line. Plain words come first, in order; the rest are `name` or `name=value`.
#[derive(Clone, Debug)]
pub(crate) struct Words<'a> {
    line: &'a str,
    words: Vec<&'a str>,
}

impl<'a> Words<'a> {
    pub(crate) fn next(&mut self) -> &'a str {
        assert!(!self.words.is_empty(), "{:?} needs more words", self.line);
        self.words.remove(0)
    }

    pub(crate) fn number(&mut self) -> i64 {
        let word = self.next();
        word.parse()
            .unwrap_or_else(|_| panic!("{word:?} of {:?} is no number", self.line))
    }

    fn flag(&mut self, name: &str) -> bool {
        let before = self.words.len();
        self.words.retain(|word| *word != name);
        self.words.len() < before
    }

    fn value(&mut self, name: &str) -> Option<&'a str> {
        let at = self
            .words
            .iter()
            .position(|word| word.split_once('=').is_some_and(|(known, _)| known == name))?;
        Some(&self.words.remove(at)[name.len() + 1..])
    }

    fn option(&mut self, name: &str) -> i64 {
        let value = self.value(name);
        value.map_or(0, |value| value.parse().unwrap())
    }

    pub(crate) fn end(&self) {
        assert!(
            self.words.is_empty(),
            "{:?}: what is {:?}?",
            self.line,
            self.words
        );
    }
}

/// A key or value: `\0` is the zero byte, `''` is nothing.
pub(crate) fn bytes(word: &str) -> Bytes {
    if word == "''" {
        return Bytes::new();
    }
    Bytes::from(word.replace("\\0", "\0"))
}

fn range(words: &mut Words<'_>) -> KeyRange {
    let start = bytes(words.next());
    let is_end = |word: &&str| !word.contains('=') && !FLAGS.contains(word);
    let end = if words.words.first().is_some_and(is_end) {
        bytes(words.next())
    } else {
        Bytes::new()
    };
    KeyRange::from_wire(start, end)
}

const FLAGS: &[&str] = &[
    "prev",
    "keys",
    "count",
    "desc",
    "no-put",
    "no-delete",
    "fragment",
    "progress",
];

pub(crate) fn put(words: &mut Words<'_>) -> Put {
    let put = Put {
        lease: words.option("lease"),
        prev_kv: words.flag("prev"),
        ignore_value: words.flag("keep-value"),
        ignore_lease: words.flag("keep-lease"),
        key: bytes(words.next()),
        value: words
            .words
            .first()
            .map_or_else(Bytes::new, |word| bytes(word)),
    };
    words.words.clear();
    put
}

pub(crate) fn query(words: &mut Words<'_>) -> RangeQuery {
    let by = words.value("sort").map(|field| match field {
        "key" => SortBy::Key,
        "version" => SortBy::Version,
        "create" => SortBy::Create,
        "mod" => SortBy::Mod,
        "value" => SortBy::Value,
        _ => panic!("{field:?} is no field"),
    });
    let descending = words.flag("desc");
    RangeQuery {
        revision: words.option("rev"),
        limit: words.option("limit"),
        sort: by.map(|by| Sort { by, descending }),
        keys_only: words.flag("keys"),
        count_only: words.flag("count"),
        uncounted: false,
        bounds: RevisionBounds {
            min_mod: words.option("min-mod"),
            max_mod: words.option("max-mod"),
            min_create: words.option("min-create"),
            max_create: words.option("max-create"),
        },
        range: range(words),
    }
}

pub(crate) fn delete(words: &mut Words<'_>) -> Delete {
    Delete {
        prev_kv: words.flag("prev"),
        range: range(words),
    }
}

pub(crate) fn watch(words: &mut Words<'_>) -> WatchRequest {
    WatchRequest {
        id: words.option("id"),
        start: words.option("start"),
        no_put: words.flag("no-put"),
        no_delete: words.flag("no-delete"),
        prev_kv: words.flag("prev"),
        progress_notify: words.flag("progress"),
        fragment: words.flag("fragment"),
        range: range(words),
    }
}

/// `if`, `then` and `else` with what is indented below them; `rest` starts behind the `txn`.
pub(crate) fn txn(rest: &mut &[Line<'_>], indent: usize) -> Txn {
    let mut txn = Txn::default();
    while let Some(line) = rest.first().filter(|line| line.indent > indent).copied() {
        *rest = &rest[1..];
        let mut words = line.words();
        match words.next() {
            "if" => txn.compares.push(compare(&mut words)),
            "then" => txn.success.extend(ops(rest, line.indent)),
            "else" => txn.failure.extend(ops(rest, line.indent)),
            other => panic!("{other:?} is no part of a transaction"),
        }
        words.end();
    }
    txn
}

fn ops(rest: &mut &[Line<'_>], indent: usize) -> Vec<TxnOp> {
    let mut ops = Vec::new();
    while let Some(line) = rest.first().filter(|line| line.indent > indent).copied() {
        *rest = &rest[1..];
        let mut words = line.words();
        ops.push(match words.next() {
            "put" => TxnOp::Put(put(&mut words)),
            "get" => TxnOp::Range(query(&mut words)),
            "del" => TxnOp::Delete(delete(&mut words)),
            "txn" => TxnOp::Txn(txn(rest, line.indent)),
            other => panic!("{other:?} is no operation"),
        });
        words.end();
    }
    ops
}

/// `FIELD KEY [END] RELATION OPERAND`.
fn compare(words: &mut Words<'_>) -> Compare {
    let field = words.next();
    let range = match words.words.len() {
        4 => range(words),
        _ => KeyRange::single(bytes(words.next())),
    };
    let relation = match words.next() {
        "=" => Relation::Equal,
        "!=" => Relation::NotEqual,
        ">" => Relation::Greater,
        "<" => Relation::Less,
        other => panic!("{other:?} is no relation"),
    };
    let operand = match field {
        "version" => Operand::Version(words.number()),
        "create" => Operand::Create(words.number()),
        "mod" => Operand::Mod(words.number()),
        "lease" => Operand::Lease(words.number()),
        "value" => Operand::Value(bytes(words.next())),
        _ => panic!("{field:?} is no field"),
    };
    Compare {
        range,
        relation,
        operand,
    }
}

//! Answers in words.

use bytes::Bytes;
use kine2_mvcc::{
    Answer, Applied, CancelCause, DeleteAnswer, OpAnswer, PutAnswer, RangeAnswer, Record, Revision,
    TxnAnswer, WatchMessage, WatchUpdate,
};

pub(crate) fn applied(applied: &Applied) -> Vec<String> {
    let at = applied.revision;
    match &applied.answer {
        Answer::Nothing | Answer::Compacted | Answer::LeaseRevoked => vec![format!("ok @{at}")],
        Answer::Put(answer) => vec![put(at, answer)],
        Answer::Delete(answer) => delete(at, answer),
        Answer::Txn(answer) => {
            let mut told = txn(answer);
            told[0] += &format!(" @{at}");
            told
        }
        Answer::LeaseGranted(grant) => vec![format!(
            "lease {} of {}s @{at}",
            grant.id, grant.ttl_seconds
        )],
        Answer::Alarms(alarms) => vec![format!("{} changed @{at}", alarms.len())],
    }
}

fn put(at: Revision, answer: &PutAnswer) -> String {
    let prev = answer.prev.as_ref();
    let prev = prev.map_or(String::new(), |prev| format!(", was {}", record(prev)));
    format!("put @{at}{prev}")
}

fn delete(at: Revision, answer: &DeleteAnswer) -> Vec<String> {
    let mut told = vec![format!("deleted {} @{at}", answer.deleted)];
    told.extend(
        answer
            .prevs
            .iter()
            .map(|prev| format!("  was {}", record(prev))),
    );
    told
}

fn txn(answer: &TxnAnswer) -> Vec<String> {
    let mut told = vec![
        if answer.succeeded {
            "succeeded"
        } else {
            "failed"
        }
        .to_owned(),
    ];
    for op in &answer.ops {
        let lines = match op {
            OpAnswer::Range(at, answer) => range(*at, answer),
            OpAnswer::Put(at, answer) => vec![put(*at, answer)],
            OpAnswer::Delete(at, answer) => delete(*at, answer),
            OpAnswer::Txn(answer) => txn(answer),
        };
        told.extend(lines.iter().map(|line| format!("  {line}")));
    }
    told
}

pub(crate) fn range(at: Revision, answer: &RangeAnswer) -> Vec<String> {
    let more = if answer.more { ", more" } else { "" };
    let mut told = vec![format!(
        "{} of {}{more} @{at}",
        answer.records.len(),
        answer.count
    )];
    told.extend(
        answer
            .records
            .iter()
            .map(|found| format!("  {}", record(found))),
    );
    told
}

/// `key=value create C mod M version V [lease L]`.
fn record(record: &Record) -> String {
    let fields = record.view();
    let lease = match fields.lease {
        0 => String::new(),
        lease => format!(" lease {lease}"),
    };
    format!(
        "{}={} create {} mod {} version {}{lease}",
        text(fields.key),
        text(fields.value),
        fields.create_revision,
        fields.mod_revision,
        fields.version
    )
}

pub(crate) fn text(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "''".to_owned();
    }
    String::from_utf8_lossy(bytes).replace('\0', "\\0")
}

pub(crate) fn message(message: &WatchMessage) -> String {
    let cause = |cause: &CancelCause| match cause {
        CancelCause::Requested => "as asked".to_owned(),
        CancelCause::EmptyRange => "empty range".to_owned(),
        CancelCause::DuplicateId => "duplicate id".to_owned(),
        CancelCause::NegativeStart => "negative start".to_owned(),
        CancelCause::Compacted(revision) => format!("compacted {revision}"),
    };
    let what = match &message.update {
        WatchUpdate::Created => "created".to_owned(),
        WatchUpdate::Refused(why) => format!("refused: {}", cause(why)),
        WatchUpdate::Canceled(why) => format!("canceled: {}", cause(why)),
        WatchUpdate::Progress => "progress".to_owned(),
        WatchUpdate::Events { events, fragment } => {
            let events: Vec<String> = events.iter().map(event).collect();
            let more = if *fragment { " ..." } else { "" };
            format!("{}{more}", events.join(", "))
        }
    };
    format!("{}: {what} @{}", message.watch_id, message.revision)
}

/// `put|del KEY@mod [was @mod]`.
fn event(event: &Bytes) -> String {
    let (delete, kv, prev) = decode_event(event);
    let verb = if delete { "del" } else { "put" };
    let prev = prev.map_or(String::new(), |prev| {
        format!(" was @{}", prev.view().mod_revision)
    });
    let fields = kv.view();
    format!("{verb} {}@{}{prev}", text(fields.key), fields.mod_revision)
}

/// `mvccpb.Event` with lengths below 128 bytes.
fn decode_event(event: &Bytes) -> (bool, Record, Option<Record>) {
    let (mut rest, mut delete, mut records) = (event.clone(), false, Vec::new());
    while !rest.is_empty() {
        let (tag, number) = (rest[0], usize::from(rest[1]));
        if tag == 8 {
            delete = number == 1;
            rest = rest.slice(2..);
        } else {
            assert!(number < 128, "events of transcripts are short");
            records.push(Record::parse(rest.slice(2..2 + number)).unwrap());
            rest = rest.slice(2 + number..);
        }
    }
    let mut records = records.into_iter();
    (delete, records.next().unwrap(), records.next())
}

//! Every setting, once. Flags, environment names and file keys are derived from this table.

/// A setting: `data-dir` in a file, `--data-dir` as a flag, `KINE2_DATA_DIR` in the environment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    /// What may stand there, for help and errors.
    pub(crate) accepts: &'static str,
    /// The value without any source; empty if it depends on the machine.
    pub(crate) default: &'static str,
    pub(crate) help: &'static str,
    pub(crate) is_list: bool,
}

const fn key(
    name: &'static str,
    accepts: &'static str,
    default: &'static str,
    help: &'static str,
) -> Key {
    Key {
        name,
        accepts,
        default,
        help,
        is_list: false,
    }
}

const fn list(
    name: &'static str,
    accepts: &'static str,
    default: &'static str,
    help: &'static str,
) -> Key {
    Key {
        name,
        accepts,
        default,
        help,
        is_list: true,
    }
}

/// All settings of `kine2 serve`.
pub(crate) const KEYS: &[Key] = &[
    key(
        "data-dir",
        "a directory",
        "",
        "Where everything is kept [default: /var/lib/kine2, or ./kine2-data when not root]",
    ),
    key(
        "single",
        "true or false",
        "false",
        "Serve one node without a peer",
    ),
    key(
        "name",
        "a name without spaces",
        "",
        "Name of this member [default: the host's name]",
    ),
    list(
        "listen-client",
        "http://, https://, unix:// or unixs:// URLs",
        "http://127.0.0.1:2379",
        "Where clients are served",
    ),
    list(
        "advertise-client",
        "URLs that clients can reach",
        "",
        "What other clients are told [default: the first listen-client]",
    ),
    list(
        "listen-admin",
        "http://, https://, unix:// or unixs:// URLs",
        "",
        "Where health and metrics are served, and nothing else, besides [default: nowhere]",
    ),
    key(
        "listen-peer",
        "an address such as 0.0.0.0:2380",
        "0.0.0.0:2380",
        "Where the other node of the cluster connects to",
    ),
    list(
        "advertise-peer",
        "addresses HOST:PORT, one for each link, the best first",
        "",
        "Where the other node finds this one [default: the address of listen-peer]",
    ),
    list(
        "peers",
        "addresses HOST:PORT, one for each link, the best first",
        "",
        "Where the other node is [default: what it said when it joined]",
    ),
    key(
        "cert-file",
        "a PEM file",
        "",
        "Certificate for https and unixs",
    ),
    key("key-file", "a PEM file", "", "Its private key"),
    key(
        "trusted-ca-file",
        "a PEM file",
        "",
        "Authorities of client certificates; if set, every client needs one",
    ),
    key(
        "quota-bytes",
        "bytes such as 2GiB, 0 for none",
        "2GiB",
        "Size of the state at which writes that need space are refused",
    ),
    key(
        "quarantine-bytes",
        "bytes such as 1GiB",
        "1GiB",
        "Size of what was put away after forced promotions that is told to the operator",
    ),
    key(
        "failback-delay",
        "a time such as 5m, 0s for never",
        "0s",
        "How long all is well before the primary hands over to the preferred node",
    ),
    key(
        "max-request-bytes",
        "bytes from 64KiB to 1536KiB",
        "1536KiB",
        "Largest write",
    ),
    key(
        "max-txn-ops",
        "a number from 1 to 128",
        "128",
        "Most operations of a transaction",
    ),
    key(
        "state-engine",
        "redb, or sled where it was built in",
        "redb",
        "Engine of the state",
    ),
    key(
        "segment-bytes",
        "bytes from 1MiB to 1GiB",
        "16MiB",
        "Size of a log segment",
    ),
    key(
        "log-keep",
        "bytes such as 2GiB",
        "2GiB",
        "Log kept for a peer that is out, at most a tenth of the disk: it catches up without a copy of the state",
    ),
    key(
        "cache-bytes",
        "bytes such as 64MiB",
        "",
        "Records kept in memory [default: a 32nd of the memory, at most 128MiB]",
    ),
    key(
        "checkpoint-bytes",
        "bytes such as 16MiB",
        "16MiB",
        "Changes after which the state is made durable",
    ),
    key(
        "checkpoint-interval",
        "a time such as 30s",
        "30s",
        "Time after which the state is made durable if it changed",
    ),
    key(
        "watch-progress-notify-interval",
        "a time from 100ms",
        "10m",
        "How often a quiet watch that asked for it hears of progress",
    ),
    key(
        "log-format",
        "plain or json",
        "plain",
        "Form of the log on standard error",
    ),
    key(
        "log-level",
        "error, warn, info, debug, trace, or a filter such as kine2_wal=debug",
        "info",
        "What is logged",
    ),
];

impl Key {
    /// Its name in the environment.
    pub(crate) fn env_name(&self) -> String {
        format!("KINE2_{}", self.name.to_uppercase().replace('-', "_"))
    }
}

/// The setting of that name.
pub(crate) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

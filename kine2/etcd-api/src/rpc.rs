//! The calls of the API: their paths, and how often each was answered with which code.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tonic::Code;

use crate::exposition::MetricsText;

/// A service of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RpcService {
    Kv,
    Watch,
    Lease,
    Cluster,
    Maintenance,
    Auth,
    Lock,
    Election,
    Health,
}

/// A call of the API, by its place in [`RPCS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rpc(usize);

/// A call that is answered on a way of its own, shorter than that of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frequent {
    Range,
    Txn,
    Put,
}

/// The first of [`RPCS`].
const FREQUENT: [Frequent; 3] = [Frequent::Range, Frequent::Txn, Frequent::Put];

/// Service, path, and kind as metrics name it. The most frequent come first.
const RPCS: [(RpcService, &str, &str); 51] = [
    (RpcService::Kv, "/etcdserverpb.KV/Range", UNARY),
    (RpcService::Kv, "/etcdserverpb.KV/Txn", UNARY),
    (RpcService::Kv, "/etcdserverpb.KV/Put", UNARY),
    (RpcService::Watch, "/etcdserverpb.Watch/Watch", BIDI),
    (
        RpcService::Kv,
        "/etcdserverpb.KV/RangeStream",
        SERVER_STREAM,
    ),
    (RpcService::Kv, "/etcdserverpb.KV/DeleteRange", UNARY),
    (RpcService::Kv, "/etcdserverpb.KV/Compact", UNARY),
    (RpcService::Lease, "/etcdserverpb.Lease/LeaseGrant", UNARY),
    (RpcService::Lease, "/etcdserverpb.Lease/LeaseRevoke", UNARY),
    (
        RpcService::Lease,
        "/etcdserverpb.Lease/LeaseKeepAlive",
        BIDI,
    ),
    (
        RpcService::Lease,
        "/etcdserverpb.Lease/LeaseTimeToLive",
        UNARY,
    ),
    (RpcService::Lease, "/etcdserverpb.Lease/LeaseLeases", UNARY),
    (
        RpcService::Maintenance,
        "/etcdserverpb.Maintenance/Alarm",
        UNARY,
    ),
    (
        RpcService::Maintenance,
        "/etcdserverpb.Maintenance/Status",
        UNARY,
    ),
    (
        RpcService::Maintenance,
        "/etcdserverpb.Maintenance/Defragment",
        UNARY,
    ),
    (
        RpcService::Maintenance,
        "/etcdserverpb.Maintenance/Hash",
        UNARY,
    ),
    (
        RpcService::Maintenance,
        "/etcdserverpb.Maintenance/HashKV",
        UNARY,
    ),
    (
        RpcService::Maintenance,
        "/etcdserverpb.Maintenance/Snapshot",
        SERVER_STREAM,
    ),
    (
        RpcService::Maintenance,
        "/etcdserverpb.Maintenance/MoveLeader",
        UNARY,
    ),
    (
        RpcService::Maintenance,
        "/etcdserverpb.Maintenance/Downgrade",
        UNARY,
    ),
    (
        RpcService::Cluster,
        "/etcdserverpb.Cluster/MemberAdd",
        UNARY,
    ),
    (
        RpcService::Cluster,
        "/etcdserverpb.Cluster/MemberRemove",
        UNARY,
    ),
    (
        RpcService::Cluster,
        "/etcdserverpb.Cluster/MemberUpdate",
        UNARY,
    ),
    (
        RpcService::Cluster,
        "/etcdserverpb.Cluster/MemberList",
        UNARY,
    ),
    (
        RpcService::Cluster,
        "/etcdserverpb.Cluster/MemberPromote",
        UNARY,
    ),
    (RpcService::Auth, "/etcdserverpb.Auth/AuthEnable", UNARY),
    (RpcService::Auth, "/etcdserverpb.Auth/AuthDisable", UNARY),
    (RpcService::Auth, "/etcdserverpb.Auth/AuthStatus", UNARY),
    (RpcService::Auth, "/etcdserverpb.Auth/Authenticate", UNARY),
    (RpcService::Auth, "/etcdserverpb.Auth/UserAdd", UNARY),
    (RpcService::Auth, "/etcdserverpb.Auth/UserGet", UNARY),
    (RpcService::Auth, "/etcdserverpb.Auth/UserList", UNARY),
    (RpcService::Auth, "/etcdserverpb.Auth/UserDelete", UNARY),
    (
        RpcService::Auth,
        "/etcdserverpb.Auth/UserChangePassword",
        UNARY,
    ),
    (RpcService::Auth, "/etcdserverpb.Auth/UserGrantRole", UNARY),
    (RpcService::Auth, "/etcdserverpb.Auth/UserRevokeRole", UNARY),
    (RpcService::Auth, "/etcdserverpb.Auth/RoleAdd", UNARY),
    (RpcService::Auth, "/etcdserverpb.Auth/RoleGet", UNARY),
    (RpcService::Auth, "/etcdserverpb.Auth/RoleList", UNARY),
    (RpcService::Auth, "/etcdserverpb.Auth/RoleDelete", UNARY),
    (
        RpcService::Auth,
        "/etcdserverpb.Auth/RoleGrantPermission",
        UNARY,
    ),
    (
        RpcService::Auth,
        "/etcdserverpb.Auth/RoleRevokePermission",
        UNARY,
    ),
    (RpcService::Lock, "/v3lockpb.Lock/Lock", UNARY),
    (RpcService::Lock, "/v3lockpb.Lock/Unlock", UNARY),
    (
        RpcService::Election,
        "/v3electionpb.Election/Campaign",
        UNARY,
    ),
    (
        RpcService::Election,
        "/v3electionpb.Election/Proclaim",
        UNARY,
    ),
    (RpcService::Election, "/v3electionpb.Election/Leader", UNARY),
    (
        RpcService::Election,
        "/v3electionpb.Election/Observe",
        SERVER_STREAM,
    ),
    (RpcService::Election, "/v3electionpb.Election/Resign", UNARY),
    (RpcService::Health, "/grpc.health.v1.Health/Check", UNARY),
    (
        RpcService::Health,
        "/grpc.health.v1.Health/Watch",
        SERVER_STREAM,
    ),
];
const UNARY: &str = "unary";
const SERVER_STREAM: &str = "server_stream";
const BIDI: &str = "bidi_stream";
/// Codes of gRPC, as metrics name them, by number.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// Upper bounds of the classes that calls are counted in by how long they took, in seconds. Those
/// of etcd, and finer ones below: most calls take less than its first.
const TOOK_BOUNDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

impl Rpc {
    pub(crate) fn of_path(path: &str) -> Option<Self> {
        RPCS.iter()
            .position(|(_, known, _)| *known == path)
            .map(Self)
    }

    /// Whether there is a service of that name, such as `etcdserverpb.KV`.
    pub(crate) fn has_service(name: &str) -> bool {
        RPCS.iter().any(|(_, path, _)| {
            let rest = path[1..].strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with('/'))
        })
    }

    /// Whether it is one of the calls that clients make all the time.
    pub(crate) fn frequent(self) -> Option<Frequent> {
        FREQUENT.get(self.0).copied()
    }

    pub(crate) const fn service(self) -> RpcService {
        RPCS[self.0].0
    }
}

/// How often each call was begun, and answered with each code.
#[derive(Debug)]
pub(crate) struct RpcCounters {
    started: Vec<AtomicU64>,
    handled: Vec<[AtomicU64; CODES.len()]>,
    took: Vec<Took>,
}

/// How long the calls of a kind took.
#[derive(Debug, Default)]
struct Took {
    /// By [`TOOK_BOUNDS`], not cumulated; the last is of what lies above all.
    classes: [AtomicU64; TOOK_BOUNDS.len() + 1],
    nanos: AtomicU64,
}

impl RpcCounters {
    pub(crate) fn new() -> Self {
        let none = || std::array::from_fn(|_| AtomicU64::new(0));
        Self {
            started: RPCS.iter().map(|_| AtomicU64::new(0)).collect(),
            handled: std::iter::repeat_with(none).take(RPCS.len()).collect(),
            took: RPCS.iter().map(|_| Took::default()).collect(),
        }
    }

    /// A call begins.
    pub(crate) fn start(self: &Arc<Self>, rpc: Rpc) -> CountedCall {
        self.started[rpc.0].fetch_add(1, Ordering::Relaxed);
        CountedCall {
            rpc,
            counters: Arc::clone(self),
            begun: Instant::now(),
            counted: false,
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "samples are floating-point numbers"
    )]
    pub(crate) fn write(&self, out: &mut MetricsText) {
        const STARTED: &str = "grpc_server_started_total";
        const NAME: &str = "grpc_server_handled_total";
        out.family(STARTED, "Calls begun.", "counter");
        for ((_, path, kind), count) in RPCS.iter().zip(&self.started) {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                let (service, method) = names(path);
                let labels = [
                    ("grpc_method", method),
                    ("grpc_service", service),
                    ("grpc_type", *kind),
                ];
                out.sample(STARTED, &labels, count as f64);
            }
        }
        out.family(NAME, "Calls answered, by code.", "counter");
        for ((_, path, kind), codes) in RPCS.iter().zip(&self.handled) {
            let (service, method) = names(path);
            for (code, count) in CODES.iter().zip(codes) {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    let labels = [
                        ("grpc_code", *code),
                        ("grpc_method", method),
                        ("grpc_service", service),
                        ("grpc_type", *kind),
                    ];
                    out.sample(NAME, &labels, count as f64);
                }
            }
        }
        self.write_took(out);
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "samples are floating-point numbers"
    )]
    fn write_took(&self, out: &mut MetricsText) {
        const NAME: &str = "grpc_server_handling_seconds";
        out.family(NAME, "Time that calls took, streams included.", "histogram");
        let bounds = TOOK_BOUNDS.map(|bound| bound.to_string());
        let bounds = || bounds.iter().map(String::as_str).chain(["+Inf"]);
        for ((_, path, kind), took) in RPCS.iter().zip(&self.took) {
            let classes = took
                .classes
                .each_ref()
                .map(|class| class.load(Ordering::Relaxed));
            let total: u64 = classes.iter().sum();
            if total == 0 {
                continue;
            }
            let (service, method) = names(path);
            let labels = [
                ("grpc_method", method),
                ("grpc_service", service),
                ("grpc_type", *kind),
            ];
            let mut cumulated = 0;
            for (bound, count) in bounds().zip(classes) {
                cumulated += count;
                let [method, service, kind] = labels;
                let labels = [method, service, kind, ("le", bound)];
                out.sample(&format!("{NAME}_bucket"), &labels, cumulated as f64);
            }
            let seconds = Duration::from_nanos(took.nanos.load(Ordering::Relaxed)).as_secs_f64();
            out.sample(&format!("{NAME}_sum"), &labels, seconds);
            out.sample(&format!("{NAME}_count"), &labels, total as f64);
        }
    }
}

impl Took {
    fn add(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let class = TOOK_BOUNDS.partition_point(|bound| *bound < seconds);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.classes[class].fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }
}

/// A call that is counted once, when it ends: with its code, or as cancelled when the client goes
/// away before.
#[derive(Debug)]
pub(crate) struct CountedCall {
    rpc: Rpc,
    counters: Arc<RpcCounters>,
    begun: Instant,
    counted: bool,
}

impl CountedCall {
    pub(crate) const fn is_counted(&self) -> bool {
        self.counted
    }

    pub(crate) fn count(&mut self, code: Code) {
        self.counted = true;
        let code = usize::try_from(i32::from(code)).expect("codes are 0 to 16");
        self.counters.handled[self.rpc.0][code].fetch_add(1, Ordering::Relaxed);
        let took = self.begun.elapsed();
        self.counters.took[self.rpc.0].add(took);
        let (call, code) = (RPCS[self.rpc.0].1, CODES[code]);
        tracing::debug!(call, code, ?took, "answered");
    }
}

impl Drop for CountedCall {
    fn drop(&mut self) {
        if !self.counted {
            self.count(Code::Cancelled);
        }
    }
}

/// Service and method of a path.
fn names(path: &str) -> (&str, &str) {
    path[1..]
        .split_once('/')
        .expect("paths are /service/method")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_found_by_path_and_counted_by_code() {
        let counters = Arc::new(RpcCounters::new());
        let put = Rpc::of_path("/etcdserverpb.KV/Put").unwrap();
        assert_eq!(put.service(), RpcService::Kv);
        assert_eq!(Rpc::of_path("/etcdserverpb.KV/Get"), None);
        let frequent = |path| Rpc::of_path(path).unwrap().frequent();
        assert_eq!(frequent("/etcdserverpb.KV/Range"), Some(Frequent::Range));
        assert_eq!(frequent("/etcdserverpb.KV/Txn"), Some(Frequent::Txn));
        assert_eq!(frequent("/etcdserverpb.KV/Put"), Some(Frequent::Put));
        assert_eq!(frequent("/etcdserverpb.Watch/Watch"), None);
        counters.start(put).count(Code::Ok);
        counters.start(put).count(Code::Unauthenticated);
        drop(counters.start(put));
        let mut out = MetricsText::default();
        counters.write(&mut out);
        let text = out.into_string();
        assert!(text.contains(
            "grpc_server_handled_total{grpc_code=\"Unauthenticated\",grpc_method=\"Put\",\
             grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 1\n"
        ));
        assert!(text.contains("{grpc_code=\"Canceled\",grpc_method=\"Put\""));
        assert!(text.contains(
            "grpc_server_started_total{grpc_method=\"Put\",\
             grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 3\n"
        ));
    }

    #[test]
    fn calls_are_counted_by_the_time_they_took() {
        let counters = RpcCounters::new();
        let put = Rpc::of_path("/etcdserverpb.KV/Put").unwrap();
        for millis in [0, 1, 3, 20_000] {
            counters.took[put.0].add(Duration::from_millis(millis));
        }
        let mut out = MetricsText::default();
        counters.write(&mut out);
        let text = out.into_string();
        let labels = "grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"";
        for (le, count) in [
            ("0.0005", 1),
            ("0.001", 2),
            ("0.0025", 2),
            ("0.005", 3),
            ("10", 3),
            ("+Inf", 4),
        ] {
            let line =
                format!("grpc_server_handling_seconds_bucket{{{labels},le=\"{le}\"}} {count}\n");
            assert!(text.contains(&line), "{line}{text}");
        }
        assert!(text.contains(&format!(
            "grpc_server_handling_seconds_sum{{{labels}}} 20.004\n"
        )));
        assert!(text.contains(&format!(
            "grpc_server_handling_seconds_count{{{labels}}} 4\n"
        )));
        assert!(
            !text.contains("seconds_count{grpc_method=\"Range\""),
            "what was not called is not told"
        );
    }
}

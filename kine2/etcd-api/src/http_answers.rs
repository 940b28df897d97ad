//! The answers over plain HTTP: health, version, metrics (`etcd S60`).

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::{Method, Response, StatusCode, Uri};
use kine2_mvcc::{AlarmKind, KeyRange, RangeQuery};

use crate::exposition::{self, MetricsText};
use crate::maintenance::alarm_type;
use crate::member::Member;
use crate::process::write_process_metrics;
use crate::rpc::RpcCounters;
use crate::service::Service;
use crate::version::{ETCD_VERSION, ETCD_VERSION_CLUSTER, ETCD_VERSION_STORAGE};

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// The sub-checks of `/livez` and `/readyz`, in the order they are shown.
const LIVE_CHECKS: &[Check] = &[Check::SerializableRead];
const READY_CHECKS: &[Check] = &[
    Check::DataCorruption,
    Check::SerializableRead,
    Check::LinearizableRead,
    Check::NonLearner,
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

impl Check {
    const fn name(self) -> &'static str {
        match self {
            Self::DataCorruption => "data_corruption",
            Self::SerializableRead => "serializable_read",
            Self::LinearizableRead => "linearizable_read",
            Self::NonLearner => "non_learner",
        }
    }
}

impl<M: Member> Service<M> {
    /// Answers a request that is not gRPC.
    pub(crate) async fn answer_http(
        &self,
        method: &Method,
        uri: &Uri,
        rpcs: &RpcCounters,
    ) -> Response<Bytes> {
        let checks_below = |root: &str, checks: &'static [Check]| {
            let name = uri.path().strip_prefix(root)?.strip_prefix('/')?;
            checks.iter().copied().find(|check| check.name() == name)
        };
        let check =
            checks_below("/livez", LIVE_CHECKS).or_else(|| checks_below("/readyz", READY_CHECKS));
        let path = uri.path();
        let known = matches!(
            path,
            "/health" | "/livez" | "/readyz" | "/version" | "/metrics"
        );
        if !known && check.is_none() {
            return response(
                StatusCode::NOT_FOUND,
                TEXT,
                "404 page not found\n".to_owned(),
            );
        }
        if method != Method::GET {
            let status = StatusCode::METHOD_NOT_ALLOWED;
            let mut response = response(status, TEXT, "Method Not Allowed\n".to_owned());
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET"));
            return response;
        }
        let query = Query(uri.query().unwrap_or_default());
        match (path, check) {
            (_, Some(check)) => self.checks(query, &[check]).await,
            ("/health", None) => self.health(query).await,
            ("/livez", None) => self.checks(query, LIVE_CHECKS).await,
            ("/readyz", None) => self.checks(query, READY_CHECKS).await,
            ("/version", None) => version(),
            _ => self.metrics(rpcs),
        }
    }

    async fn health(&self, query: Query<'_>) -> Response<Bytes> {
        let serializable = query.has_value("serializable", "true");
        let reason = self.ill(query, serializable).await;
        // JSON that says it is text, with a line's end behind bad news: so does etcd.
        let (status, health, end) = match reason {
            None => (StatusCode::OK, "true", ""),
            Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "false", "\n"),
        };
        let reason = reason.unwrap_or_default();
        let body = format!("{{\"health\":\"{health}\",\"reason\":\"{reason}\"}}{end}");
        response(status, TEXT, body)
    }

    /// Why the server is not healthy, in characters that JSON need not escape.
    async fn ill(&self, query: Query<'_>, serializable: bool) -> Option<String> {
        for alarm in self.member.alarms() {
            let name = alarm_type(alarm.kind).as_str_name();
            if !query.has_value("exclude", name) {
                return Some(format!("ALARM {name}"));
            }
        }
        if !serializable && self.member.status().primary == 0 {
            return Some("RAFT NO LEADER".to_owned());
        }
        let error = self.read_something(serializable).await.err()?;
        Some(format!(
            "RANGE ERROR:{}",
            error.replace(['"', '\\', '\n'], "'")
        ))
    }

    async fn checks(&self, query: Query<'_>, checks: &[Check]) -> Response<Bytes> {
        let mut report = String::new();
        let mut failed = false;
        for check in checks {
            let name = check.name();
            if query.has_value("exclude", name) {
                continue;
            }
            match self.check(*check).await {
                Ok(()) => report.push_str(&format!("[+]{name} ok\n")),
                Err(reason) => {
                    failed = true;
                    report.push_str(&format!("[-]{name} failed: {reason}\n"));
                }
            }
        }
        if failed {
            return response(StatusCode::SERVICE_UNAVAILABLE, TEXT, report + "\n");
        }
        let shown = if query.has("verbose") {
            report
        } else {
            String::new()
        };
        response(StatusCode::OK, TEXT, shown + "ok\n")
    }

    async fn check(&self, check: Check) -> Result<(), String> {
        match check {
            Check::DataCorruption => {
                let alarms = self.member.alarms();
                if alarms.iter().any(|alarm| alarm.kind == AlarmKind::Corrupt) {
                    return Err("alarm activated: CORRUPT".to_owned());
                }
                Ok(())
            }
            Check::SerializableRead => self.read_something(true).await,
            Check::LinearizableRead => self.read_something(false).await,
            Check::NonLearner => Ok(()),
        }
    }

    async fn read_something(&self, serializable: bool) -> Result<(), String> {
        let key = KeyRange::single(Bytes::from_static(b"\0"));
        let query = RangeQuery {
            keys_only: true,
            ..RangeQuery::all(key)
        };
        match self.member.range(&query, serializable).await {
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn metrics(&self, rpcs: &RpcCounters) -> Response<Bytes> {
        let mut out = MetricsText::default();
        let status = self.member.status();
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let is_leader = status.primary == self.member.identity().member_id;
        let gauges = [
            (
                "etcd_server_has_leader",
                "Whether a leader is known.",
                i64::from(status.primary != 0),
            ),
            (
                "etcd_server_is_leader",
                "Whether this member leads.",
                i64::from(is_leader),
            ),
            (
                "etcd_server_quota_backend_bytes",
                "Quota.",
                bytes(status.quota),
            ),
            (
                "etcd_mvcc_db_total_size_in_bytes",
                "Size of the state.",
                bytes(status.db_size),
            ),
            (
                "etcd_mvcc_db_total_size_in_use_in_bytes",
                "Size of the state less what is free in it.",
                bytes(status.db_size_in_use),
            ),
            (
                "etcd_debugging_mvcc_current_revision",
                "Revision of the store.",
                status.revision.0,
            ),
            (
                "kine2_large_answers_in_flight_bytes",
                "Bytes of large answers not yet written.",
                i64::try_from(self.answers.in_flight_bytes()).unwrap_or(i64::MAX),
            ),
        ];
        for (name, help, value) in gauges {
            out.gauge(name, help, value);
        }
        let id = format!("{:x}", self.member.identity().member_id);
        for (name, help, label, value) in [
            (
                "etcd_server_version",
                "Which etcd this is like.",
                "server_version",
                ETCD_VERSION,
            ),
            (
                "etcd_cluster_version",
                "Version of the cluster.",
                "cluster_version",
                ETCD_VERSION_CLUSTER,
            ),
            ("etcd_server_id", "Id of this member.", "server_id", &id),
        ] {
            out.family(name, help, "gauge");
            out.sample(name, &[(label, value)], 1.0);
        }
        self.member.metrics(&mut out);
        rpcs.write(&mut out);
        write_process_metrics(&mut out);
        response(StatusCode::OK, exposition::CONTENT_TYPE, out.into_string())
    }
}

fn version() -> Response<Bytes> {
    let body = format!(
        "{{\"etcdserver\":\"{ETCD_VERSION}\",\"etcdcluster\":\"{ETCD_VERSION_CLUSTER}\",\
         \"storage\":\"{ETCD_VERSION_STORAGE}\"}}"
    );
    response(StatusCode::OK, JSON, body)
}

fn response(status: StatusCode, content_type: &'static str, body: String) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// The part of a URL behind the question mark. The values that count here need no decoding.
#[derive(Clone, Copy)]
struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    fn pairs(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }

    fn has(self, name: &str) -> bool {
        self.pairs().any(|(known, _)| known == name)
    }

    fn has_value(self, name: &str, value: &str) -> bool {
        self.pairs().any(|pair| pair == (name, value))
    }
}

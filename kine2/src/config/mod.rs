//! Configuration: read once, checked whole, before anything is bound.

mod keys;
mod sources;
mod units;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use kine2_etcd_api::{ListenAddress, ListenUrl, TlsFiles};

pub(crate) use keys::KEYS;
pub(crate) use sources::{DEFAULT_FILE, Given, Settings, Source, gather, read_text};
use units::{parse_bytes, parse_duration};

/// What `kine2 serve` does, checked.
#[derive(Clone, Debug)]
pub(crate) struct ServeConfig {
    pub(crate) data_dir: PathBuf,
    pub(crate) single: bool,
    pub(crate) name: String,
    pub(crate) listen_client: Vec<ListenUrl>,
    pub(crate) advertise_client: Vec<String>,
    pub(crate) listen_admin: Vec<ListenUrl>,
    pub(crate) listen_peer: SocketAddr,
    pub(crate) advertise_peer: Vec<String>,
    pub(crate) peers: Vec<String>,
    pub(crate) tls: Option<TlsFiles>,
    pub(crate) quota_bytes: u64,
    pub(crate) quarantine_bytes: u64,
    pub(crate) failback_delay: Duration,
    pub(crate) request_bytes_max: usize,
    pub(crate) txn_ops_max: usize,
    pub(crate) state_engine: String,
    pub(crate) segment_bytes: u64,
    /// Of log kept for a peer that is out, if the disk has ten times as much.
    pub(crate) log_keep_bytes: u64,
    pub(crate) cache_bytes: usize,
    pub(crate) checkpoint_bytes: usize,
    pub(crate) checkpoint_interval: Duration,
    pub(crate) progress_interval: Duration,
    pub(crate) log: LogConfig,
}

/// How to log.
#[derive(Clone, Debug)]
pub(crate) struct LogConfig {
    pub(crate) json: bool,
    pub(crate) filter: String,
}

/// What the machine decides where nothing was set.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) is_root: bool,
    pub(crate) host_name: String,
    pub(crate) memory_bytes: u64,
}

impl ServeConfig {
    /// Checks every setting.
    ///
    /// # Errors
    /// If one is not acceptable: names its key, where it came from, and what would be.
    pub(crate) fn check(settings: &Settings, machine: &Machine) -> anyhow::Result<Self> {
        let reader = Reader(settings);
        let default_dir = if machine.is_root {
            "/var/lib/kine2"
        } else {
            "./kine2-data"
        };
        let data_dir = PathBuf::from(reader.text("data-dir").unwrap_or(default_dir));
        let listen_client = reader.each("listen-client", parse_url)?;
        ensure!(
            !listen_client.is_empty(),
            "listen-client is empty: nobody could be served"
        );
        let listen_admin = reader.each("listen-admin", parse_url)?;
        let tls = reader.tls()?;
        let wants_tls = listen_client
            .iter()
            .chain(&listen_admin)
            .find(|url| url.tls);
        if let (Some(url), None) = (wants_tls, &tls) {
            bail!("{url} needs cert-file and key-file");
        }
        let cache_default = (machine.memory_bytes / 32).min(128 << 20);
        Ok(Self {
            advertise_client: reader.advertised(&listen_client, machine)?,
            name: reader
                .one("name", |name| {
                    ensure!(
                        !name.contains(char::is_whitespace),
                        "{name:?} has a space in it"
                    );
                    Ok(name.to_owned())
                })?
                .unwrap_or_else(|| machine.host_name.clone()),
            single: reader.flag("single")?,
            listen_peer: reader
                .one("listen-peer", |text| Ok(text.parse()?))?
                .context("listen-peer is empty")?,
            advertise_peer: reader.each("advertise-peer", parse_host_port)?,
            peers: reader.each("peers", parse_host_port)?,
            quota_bytes: reader
                .bytes("quota-bytes", 0, u64::MAX)?
                .unwrap_or_default(),
            quarantine_bytes: reader
                .bytes("quarantine-bytes", 0, u64::MAX)?
                .unwrap_or_default(),
            failback_delay: reader.duration("failback-delay", Duration::ZERO)?,
            request_bytes_max: to_usize(
                reader.bytes("max-request-bytes", 64 << 10, 1_572_864)?,
                1_572_864,
            ),
            txn_ops_max: reader
                .one("max-txn-ops", |text| {
                    let ops: usize = text.parse()?;
                    ensure!((1..=128).contains(&ops), "{ops} is out of bounds");
                    Ok(ops)
                })?
                .unwrap_or(128),
            state_engine: reader.text("state-engine").unwrap_or("redb").to_owned(),
            segment_bytes: reader
                .bytes("segment-bytes", 1 << 20, 1 << 30)?
                .unwrap_or(kine2_wal::DEFAULT_SEGMENT_BYTES)
                .next_multiple_of(4096),
            log_keep_bytes: reader.bytes("log-keep", 0, u64::MAX)?.unwrap_or(2 << 30),
            cache_bytes: to_usize(reader.bytes("cache-bytes", 0, u64::MAX)?, cache_default),
            checkpoint_bytes: to_usize(
                reader.bytes("checkpoint-bytes", 1 << 20, 1 << 30)?,
                16 << 20,
            ),
            checkpoint_interval: reader.duration("checkpoint-interval", Duration::from_secs(1))?,
            progress_interval: reader
                .duration("watch-progress-notify-interval", Duration::from_millis(100))?,
            log: LogConfig {
                json: reader
                    .one("log-format", |format| match format {
                        "plain" => Ok(false),
                        "json" => Ok(true),
                        other => bail!("there is no format {other}"),
                    })?
                    .unwrap_or(false),
                filter: reader.text("log-level").unwrap_or("info").to_owned(),
            },
            data_dir,
            listen_client,
            listen_admin,
            tls,
        })
    }
}

struct Reader<'a>(&'a Settings);

impl Reader<'_> {
    fn given(&self, name: &str) -> &Given {
        self.0
            .get(name)
            .expect("every key of the table has a value")
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.given(name).values.first().map(String::as_str)
    }

    fn each<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> anyhow::Result<T>,
    ) -> anyhow::Result<Vec<T>> {
        let given = self.given(name);
        let key = keys::find(name).expect("a key of the table");
        let parse = |text: &String| {
            parse(text).with_context(|| {
                format!(
                    "{name} ({}) takes {}, not {text:?}",
                    given.source, key.accepts
                )
            })
        };
        given.values.iter().map(parse).collect()
    }

    fn one<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> anyhow::Result<T>,
    ) -> anyhow::Result<Option<T>> {
        Ok(self.each(name, parse)?.into_iter().next())
    }

    fn flag(&self, name: &str) -> anyhow::Result<bool> {
        let flag = self.one(name, |text| match text {
            "true" => Ok(true),
            "false" => Ok(false),
            other => bail!("{other} is neither true nor false"),
        });
        Ok(flag?.unwrap_or_default())
    }

    fn bytes(&self, name: &str, min: u64, max: u64) -> anyhow::Result<Option<u64>> {
        self.one(name, |text| {
            let bytes = parse_bytes(text)?;
            ensure!((min..=max).contains(&bytes), "{text} is out of bounds");
            Ok(bytes)
        })
    }

    fn duration(&self, name: &str, min: Duration) -> anyhow::Result<Duration> {
        let parsed = self.one(name, |text| {
            let duration = parse_duration(text)?;
            ensure!(duration >= min, "{text} is too short");
            Ok(duration)
        })?;
        parsed.with_context(|| format!("{name} is empty"))
    }

    fn tls(&self) -> anyhow::Result<Option<TlsFiles>> {
        let path = |name| self.text(name).map(PathBuf::from);
        let client_ca = path("trusted-ca-file");
        match (path("cert-file"), path("key-file")) {
            (Some(cert), Some(key)) => Ok(Some(TlsFiles {
                cert,
                key,
                client_ca,
            })),
            (None, None) if client_ca.is_some() => {
                bail!("trusted-ca-file needs cert-file and key-file")
            }
            (None, None) => Ok(None),
            (Some(_), None) => bail!("cert-file needs key-file"),
            (None, Some(_)) => bail!("key-file needs cert-file"),
        }
    }

    /// What clients are told; they call it, so it must be callable (`etcd` section 1.3 E3).
    fn advertised(
        &self,
        listen_client: &[ListenUrl],
        machine: &Machine,
    ) -> anyhow::Result<Vec<String>> {
        let advertised = self.each("advertise-client", parse_url)?;
        if let Some(url) = advertised.iter().find(|url| wildcard_port(url).is_some()) {
            bail!("advertise-client: no client can call {url}");
        }
        if !advertised.is_empty() {
            return Ok(advertised.iter().map(ListenUrl::to_string).collect());
        }
        let shown = listen_client.iter().map(|url| match wildcard_port(url) {
            Some(port) => {
                let scheme = if url.tls { "https" } else { "http" };
                format!("{scheme}://{}:{port}", machine.host_name)
            }
            None => url.to_string(),
        });
        Ok(shown.collect())
    }
}

fn parse_host_port(text: &str) -> anyhow::Result<String> {
    let parts = text.rsplit_once(':');
    let is_good = |(host, port): (&str, &str)| !host.is_empty() && port.parse::<u16>().is_ok();
    ensure!(parts.is_some_and(is_good), "{text:?} is not HOST:PORT");
    Ok(text.to_owned())
}

fn parse_url(text: &str) -> anyhow::Result<ListenUrl> {
    Ok(text.parse()?)
}

/// The port, if the address is one that stands for all of the machine's.
fn wildcard_port(url: &ListenUrl) -> Option<&str> {
    let ListenAddress::Tcp(address) = &url.address else {
        return None;
    };
    let (host, port) = address.rsplit_once(':')?;
    matches!(host, "0.0.0.0" | "[::]").then_some(port)
}

fn to_usize(bytes: Option<u64>, default: u64) -> usize {
    usize::try_from(bytes.unwrap_or(default)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;

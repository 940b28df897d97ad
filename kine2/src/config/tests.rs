use std::path::Path;

use super::sources::Source;
use super::*;

const MACHINE: fn() -> Machine = || Machine {
    is_root: false,
    host_name: "till".into(),
    memory_bytes: 4 << 30,
};

fn with_file(text: &str) -> anyhow::Result<ServeConfig> {
    let mut settings = gather(Some(Path::new("/dev/null")), |_| None, Vec::new())?;
    read_text(Path::new("c.yaml"), text, &mut settings)?;
    ServeConfig::check(&settings, &MACHINE())
}

#[track_caller]
fn refused(text: &str, says: &[&str]) {
    let error = format!("{:#}", with_file(text).unwrap_err());
    for word in says {
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn defaults() {
    let config = with_file("").unwrap();
    assert_eq!(config.data_dir, Path::new("./kine2-data"));
    assert_eq!(config.name, "till");
    assert_eq!(config.advertise_client, ["http://127.0.0.1:2379"]);
    assert_eq!(
        (config.quota_bytes, config.cache_bytes),
        (2 << 30, 128 << 20)
    );
}

#[test]
fn a_wrong_key_or_value_is_refused_with_its_name_line_and_what_would_do() {
    refused(
        "single: true\ndata_dir: /x",
        &["c.yaml:2", "data_dir", "data-dir"],
    );
    refused("quota-bytes: lots", &["quota-bytes", "c.yaml:1", "2GiB"]);
    refused(
        "listen-client: 127.0.0.1:2379",
        &["listen-client", "http://"],
    );
    refused("listen-client: https://127.0.0.1:2379", &["cert-file"]);
    refused("max-txn-ops: 129", &["max-txn-ops", "1 to 128"]);
    refused("trusted-ca-file: /ca.pem", &["cert-file"]);
    refused("single: [true]", &["single", "true or false"]);
    refused("advertise-client: http://0.0.0.0:2379", &["0.0.0.0"]);
    refused("just words", &["key: value"]);
    refused("log-format: xml", &["log-format", "plain or json"]);
}

#[test]
fn a_wildcard_is_never_advertised() {
    let config = with_file("listen-client: ['http://0.0.0.0:1', 'unix:///run/k.sock']").unwrap();
    assert_eq!(
        config.advertise_client,
        ["http://till:1", "unix:///run/k.sock"]
    );
}

#[test]
fn every_key_works_in_all_three_forms_and_flags_win() {
    for key in KEYS {
        let env = |name: &str| (name == key.env_name()).then(|| "env".into());
        let settings = gather(Some(Path::new("/dev/null")), env, Vec::new()).unwrap();
        assert_eq!(settings[key.name].values, ["env"], "{}", key.env_name());
        let flags = vec![(key.name, vec!["flag".to_owned()])];
        let settings = gather(Some(Path::new("/dev/null")), env, flags).unwrap();
        assert_eq!(
            settings[key.name],
            Given {
                values: vec!["flag".into()],
                source: Source::Flag
            }
        );
        let mut settings = gather(Some(Path::new("/dev/null")), |_| None, Vec::new()).unwrap();
        let line = format!("\n{}: file\n", key.name);
        read_text(Path::new("c.yaml"), &line, &mut settings).unwrap();
        let source = Source::File {
            path: "c.yaml".into(),
            line: 2,
        };
        assert_eq!(
            settings[key.name],
            Given {
                values: vec!["file".into()],
                source
            }
        );
    }
}

#[test]
fn the_directory_beside_the_file_is_read_after_it_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.yaml");
    std::fs::write(&file, "name: one\nmax-txn-ops: 5").unwrap();
    std::fs::create_dir(dir.path().join("config.yaml.d")).unwrap();
    for (name, text) in [
        ("b.yaml", "name: three"),
        ("a.yaml", "name: two"),
        ("c.txt", "name: no"),
    ] {
        std::fs::write(dir.path().join("config.yaml.d").join(name), text).unwrap();
    }
    let settings = gather(Some(&file), |_| None, Vec::new()).unwrap();
    let config = ServeConfig::check(&settings, &MACHINE()).unwrap();
    assert_eq!((config.name.as_str(), config.txn_ops_max), ("three", 5));
}

#[test]
fn a_file_that_was_named_must_be_there() {
    let error = gather(Some(Path::new("/nowhere/c.yaml")), |_| None, Vec::new()).unwrap_err();
    assert!(format!("{error:#}").contains("/nowhere/c.yaml"));
}

#[test]
fn quantities() {
    assert_eq!(parse_bytes("1536KiB").unwrap(), 1_572_864);
    assert_eq!(parse_bytes("10").unwrap(), 10);
    assert!(parse_bytes("1.5GiB").is_err() && parse_bytes("99999999999GiB").is_err());
    assert_eq!(parse_duration("100ms").unwrap(), Duration::from_millis(100));
    assert!(parse_duration("5").is_err() && parse_duration("").is_err());
}

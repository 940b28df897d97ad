//! What the fuzzers run; a test runs the same over the seeds that were kept.

use std::path::Path;

use crate::config::{Given, Machine, ServeConfig, Settings, Source, gather, read_text};

/// Reads `data` as a configuration file, and checks what it says.
///
/// # Panics
/// When a setting is lost or changed on the way, or an error does not say where it is.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        // Read as text, or not at all.
        return;
    };
    let defaults = gather(Some(Path::new("/dev/null")), |_| None, Vec::new())
        .expect("nothing but defaults is always read");
    let mut settings = defaults.clone();
    let machine = Machine {
        is_root: false,
        host_name: "host".to_owned(),
        memory_bytes: 1 << 30,
    };
    let read = read_text(Path::new("fuzz.yaml"), text, &mut settings);
    assert!(
        settings.keys().eq(defaults.keys()),
        "no key comes or goes by what a file says"
    );
    if let Err(error) = read {
        let text = format!("{error:#}");
        assert!(text.contains("fuzz.yaml"), "{text}");
        return;
    }
    match ServeConfig::check(&settings, &machine) {
        Ok(checked) => check_again(&settings, &machine, &checked),
        Err(error) => assert!(!format!("{error:#}").is_empty()),
    }
}

/// What was accepted from a file is accepted from flags, and means the same.
fn check_again(settings: &Settings, machine: &Machine, checked: &ServeConfig) {
    let as_flag = |(name, given): (&&'static str, &Given)| {
        let given = Given {
            values: given.values.clone(),
            source: Source::Flag,
        };
        (*name, given)
    };
    let flags: Settings = settings.iter().map(as_flag).collect();
    let again = ServeConfig::check(&flags, machine).expect("only the source differs");
    assert_eq!(format!("{again:?}"), format!("{checked:?}"));
    assert!(!checked.listen_client.is_empty());
    assert_eq!(checked.segment_bytes % 4096, 0);
}

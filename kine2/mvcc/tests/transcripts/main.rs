//! Cases of the API as transcripts to read and to diff: commands, `----`, what came of them.
//!
//! The files lie in `tests/testdata/mvcc` and carry the number of their case in the name.
//! `KINE2_REWRITE=1 cargo test -p kine2-mvcc --test transcripts` writes what comes now into them.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

#[path = "../store_model/backend.rs"]
mod backend;
mod script;
mod stage;
mod tell;

use std::fs;
use std::path::{Path, PathBuf};

use stage::Stage;

const SEPARATOR: &str = "----";

#[test]
fn every_transcript_comes_out_as_written() {
    let mut differing = Vec::new();
    let files = transcripts();
    assert!(files.len() > 10, "transcripts are in {files:?}");
    for path in files {
        let written = fs::read_to_string(&path).unwrap();
        let played = play(&written);
        if played == written {
            continue;
        }
        if std::env::var_os("KINE2_REWRITE").is_some() {
            fs::write(&path, played).unwrap();
        } else {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            differing.push(format!("{name}\n{}", first_difference(&written, &played)));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

fn transcripts() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/testdata/mvcc");
    let entries = fs::read_dir(dir).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// The transcript with its results as they come out now. Blocks are parted by empty lines; one
/// without a separator is a comment.
fn play(written: &str) -> String {
    let mut stage = Stage::new();
    let blocks = written.trim_end().split("\n\n").map(|block| {
        let mut lines = block.lines();
        let commands: Vec<&str> = lines
            .by_ref()
            .take_while(|line| *line != SEPARATOR)
            .collect();
        let head = commands.join("\n");
        if !block.lines().any(|line| line == SEPARATOR) {
            return head;
        }
        let told = stage.perform(&commands);
        format!("{head}\n{SEPARATOR}\n{}", told.join("\n"))
    });
    let blocks: Vec<String> = blocks.map(|block| block.trim_end().to_owned()).collect();
    blocks.join("\n\n") + "\n"
}

fn first_difference(written: &str, played: &str) -> String {
    let mut played_lines = played.lines();
    for (number, line) in written.lines().enumerate() {
        let now = played_lines.next().unwrap_or("nothing more");
        if line != now {
            return format!("line {}: {line:?} is now {now:?}", number + 1);
        }
    }
    "it is longer now".to_owned()
}

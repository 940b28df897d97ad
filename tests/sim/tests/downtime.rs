//! The failure table, measured. `cargo test -p kine2-sim --test downtime -- --nocapture` prints it.

use std::time::Duration;

use kine2_sim::downtime::ROWS;

#[test]
fn nobody_waits_longer_than_promised() {
    let mut text = String::from("| event | without an answer | promised |\n|---|---|---|\n");
    let mut late = Vec::new();
    for row in ROWS {
        let gap = row.measure();
        text += &format!(
            "| {} | {} | {} |\n",
            row.event,
            seconds(gap),
            seconds(row.promise)
        );
        if gap > row.promise {
            late.push(row.event);
        }
    }
    println!("{text}");
    assert!(late.is_empty(), "longer than promised: {late:?}");
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

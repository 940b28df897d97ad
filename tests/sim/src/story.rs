//! What happened in a run, in words.

use std::fmt;
use std::time::Duration;

/// Lines at most; of a longer story the end is what counts.
const LINES_MAX: usize = 400;

/// A story.
#[derive(Clone, Debug, Default)]
pub struct Story {
    lines: Vec<(Duration, String)>,
    left_out: usize,
    /// Print each line at once.
    pub aloud: bool,
}

impl Story {
    /// Something happened.
    pub fn tell(&mut self, now: Duration, line: String) {
        if self.aloud {
            #[expect(clippy::print_stdout, reason = "asked for by TRACE")]
            {
                println!("{:>10.4} s  {line}", now.as_secs_f64());
            }
        }
        if self.lines.len() == LINES_MAX {
            self.lines.remove(0);
            self.left_out += 1;
        }
        self.lines.push((now, line));
    }

    /// Its lines.
    #[must_use]
    pub fn lines(&self) -> &[(Duration, String)] {
        &self.lines
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.left_out > 0 {
            writeln!(f, "({} lines before)", self.left_out)?;
        }
        for (at, line) in &self.lines {
            writeln!(f, "{:>10.4} s  {line}", at.as_secs_f64())?;
        }
        Ok(())
    }
}

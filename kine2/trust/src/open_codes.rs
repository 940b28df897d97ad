//! The codes that were given out and may still be used, on disk: no secret, only its hash. That a
//! code was used is durable before anybody is let in by it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{FlockOperation, flock};
use thiserror::Error;

use crate::code::{Code, Secret, unix_seconds};
use crate::files::replace;
use crate::fingerprint::Fingerprint;

/// Codes that may be open at a time.
pub const CODES_MAX: usize = 64;
/// Codes that are remembered at most; of more, the oldest that are used or over are forgotten.
const REMEMBERED_MAX: usize = 1024;
/// A code is remembered this long after its end, so that it is told from one that never was.
const REMEMBERED_SECONDS: u64 = 24 * 3600;
const HEADER: &str = "kine2 codes 1";

/// Why a code lets nobody in.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum CodeRefusal {
    /// It was never given out here, or long ago.
    #[error("the code is not known here")]
    Unknown,
    /// It was used.
    #[error("the code was used already: a code lets in once")]
    Used,
    /// It is over.
    #[error("the code has expired")]
    Expired,
}

/// Why the file cannot be used.
#[derive(Debug, Error)]
pub enum CodesError {
    /// It cannot be read or written.
    #[error("{0:?}: {1}")]
    Io(PathBuf, io::Error),
    /// It holds something else.
    #[error("{0:?} is damaged: {1}; remove it and make new codes")]
    Damaged(PathBuf, &'static str),
    /// Too many are open.
    #[error("{CODES_MAX} codes are open already: wait until some have expired")]
    Full,
}

/// The file of open codes. Programs that use it at the same time wait for each other.
#[derive(Debug)]
pub struct OpenCodes {
    path: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    secret: Fingerprint,
    expires_unix_seconds: u64,
    used: bool,
}

impl OpenCodes {
    /// Those in this file; none, if there is no such file.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// Keeps a code that is given out.
    ///
    /// # Errors
    /// If the file cannot be used, or too many are open.
    pub fn add(&self, code: &Code, now: SystemTime) -> Result<(), CodesError> {
        let _lock = self.lock()?;
        let mut known = self.read()?;
        let now = unix_seconds(now);
        let is_open = |code: &Known| !code.used && now < code.expires_unix_seconds;
        if known.iter().filter(|code| is_open(code)).count() >= CODES_MAX {
            return Err(CodesError::Full);
        }
        known.push(Known {
            secret: Fingerprint::of(&code.secret.0),
            expires_unix_seconds: code.expires_unix_seconds,
            used: false,
        });
        let mut too_many = known.len().saturating_sub(REMEMBERED_MAX);
        known.retain(|code| {
            let old = now >= code.expires_unix_seconds.saturating_add(REMEMBERED_SECONDS);
            let forget = old || (too_many > 0 && !is_open(code));
            too_many = too_many.saturating_sub(usize::from(forget));
            !forget
        });
        self.write(&known)
    }

    /// Whether the secret is one that lets in. It can be used until [`take`](Self::take).
    ///
    /// # Errors
    /// If the file cannot be used.
    pub fn look(
        &self,
        secret: &Secret,
        now: SystemTime,
    ) -> Result<Result<(), CodeRefusal>, CodesError> {
        let _lock = self.lock()?;
        Ok(find(&self.read()?, secret, now).map(|_| ()))
    }

    /// Uses the secret up, durably. Of several that take one, one is let in.
    ///
    /// # Errors
    /// If the file cannot be used.
    pub fn take(
        &self,
        secret: &Secret,
        now: SystemTime,
    ) -> Result<Result<(), CodeRefusal>, CodesError> {
        let _lock = self.lock()?;
        let mut known = self.read()?;
        match find(&known, secret, now) {
            Err(refusal) => Ok(Err(refusal)),
            Ok(at) => {
                known[at].used = true;
                self.write(&known).map(Ok)
            }
        }
    }

    fn lock(&self) -> Result<File, CodesError> {
        let path = self.path.with_extension("lock");
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(false).mode(0o600);
        let file = options
            .open(&path)
            .map_err(|error| CodesError::Io(path.clone(), error))?;
        flock(&file, FlockOperation::LockExclusive)
            .map_err(|error| CodesError::Io(path, error.into()))?;
        Ok(file)
    }

    fn read(&self) -> Result<Vec<Known>, CodesError> {
        match fs::read_to_string(&self.path) {
            Ok(text) => parse(&text).map_err(|what| CodesError::Damaged(self.path.clone(), what)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(CodesError::Io(self.path.clone(), error)),
        }
    }

    fn write(&self, known: &[Known]) -> Result<(), CodesError> {
        replace(&self.path, print(known).as_bytes())
            .map_err(|error| CodesError::Io(self.path.clone(), error))
    }

    /// Where they are.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn find(known: &[Known], secret: &Secret, now: SystemTime) -> Result<usize, CodeRefusal> {
    // Of the secret only its hash is compared: how long that takes tells nothing of the secret.
    let hash = Fingerprint::of(&secret.0);
    let at = known.iter().position(|code| code.secret == hash);
    let at = at.ok_or(CodeRefusal::Unknown)?;
    match known[at] {
        Known { used: true, .. } => Err(CodeRefusal::Used),
        code if unix_seconds(now) >= code.expires_unix_seconds => Err(CodeRefusal::Expired),
        _ => Ok(at),
    }
}

fn print(known: &[Known]) -> String {
    let mut text = format!("{HEADER}\n");
    for code in known {
        let state = if code.used { "used" } else { "open" };
        let (secret, expires) = (code.secret, code.expires_unix_seconds);
        text.push_str(&format!("{secret} {expires} {state}\n"));
    }
    let sum = crc32c::crc32c(text.as_bytes());
    text + &format!("sum {sum:08x}\n")
}

fn parse(text: &str) -> Result<Vec<Known>, &'static str> {
    let at = text.rfind("sum ").ok_or("its last line is not a sum")?;
    let (body, sum) = text.split_at(at);
    if sum != format!("sum {:08x}\n", crc32c::crc32c(body.as_bytes())) {
        return Err("its sum is wrong");
    }
    let mut lines = body.lines();
    if lines.next() != Some(HEADER) {
        return Err("its first line is another");
    }
    lines
        .map(|line| known(line).ok_or("a line is no code"))
        .collect()
}

fn known(line: &str) -> Option<Known> {
    let mut words = line.split(' ');
    let digits = words.next()?;
    let mut hash = [0; 32];
    if digits.len() != 64 || !digits.is_ascii() {
        return None;
    }
    for (at, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(Known {
        secret: Fingerprint(hash),
        expires_unix_seconds: words.next()?.parse().ok()?,
        used: match words.next()? {
            "used" => true,
            "open" => false,
            _ => return None,
        },
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::code::CodeKind;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn code(now: u64) -> Code {
        let print = Fingerprint([1; 32]);
        let life = Duration::from_secs(60);
        Code::new(CodeKind::Join, Vec::new(), print, life, at(now)).unwrap()
    }

    fn codes(dir: &tempfile::TempDir) -> OpenCodes {
        OpenCodes::at(dir.path().join("codes"))
    }

    #[test]
    fn a_code_lets_in_once_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (code(100), code(100));
        codes(&dir).add(&one, at(100)).unwrap();
        codes(&dir).add(&two, at(100)).unwrap();
        let take = |code: &Code, now| codes(&dir).take(&code.secret, at(now)).unwrap();
        let look = |code: &Code, now| codes(&dir).look(&code.secret, at(now)).unwrap();
        assert_eq!(look(&one, 101), Ok(()));
        assert_eq!(take(&one, 101), Ok(()));
        assert_eq!(look(&one, 102), Err(CodeRefusal::Used));
        assert_eq!(take(&one, 102), Err(CodeRefusal::Used));
        assert_eq!(take(&two, 160), Err(CodeRefusal::Expired));
        assert_eq!(take(&code(100), 102), Err(CodeRefusal::Unknown));
        assert_eq!(take(&two, 159), Ok(()));
    }

    #[test]
    fn only_open_codes_count_and_used_ones_are_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let codes = codes(&dir);
        let used: Vec<Code> = (0..CODES_MAX + 10)
            .map(|_| {
                let one = code(100);
                codes.add(&one, at(100)).unwrap();
                codes.take(&one.secret, at(100)).unwrap().unwrap();
                one
            })
            .collect();
        for one in &used {
            let again = codes.take(&one.secret, at(101)).unwrap();
            assert_eq!(again, Err(CodeRefusal::Used));
        }
    }

    #[test]
    fn secrets_are_not_in_the_file_and_old_codes_leave_it() {
        let dir = tempfile::tempdir().unwrap();
        let codes = codes(&dir);
        for number in 0..CODES_MAX {
            assert!(codes.add(&code(100), at(100)).is_ok(), "{number}");
        }
        assert!(matches!(
            codes.add(&code(100), at(100)),
            Err(CodesError::Full)
        ));
        let later = 100 + 60 + REMEMBERED_SECONDS;
        let last = code(later);
        codes.add(&last, at(later)).unwrap();
        let text = fs::read_to_string(codes.path()).unwrap();
        assert_eq!(text.lines().count(), 3, "{text}");
        let secret: String = last.secret.0.iter().map(|b| format!("{b:02x}")).collect();
        assert!(!text.contains(&secret));
    }

    #[test]
    fn a_damaged_file_lets_nobody_in() {
        let dir = tempfile::tempdir().unwrap();
        let codes = codes(&dir);
        let one = code(100);
        codes.add(&one, at(100)).unwrap();
        let good = fs::read(codes.path()).unwrap();
        for byte in 0..good.len() {
            let mut bad = good.clone();
            bad[byte] ^= 1;
            fs::write(codes.path(), &bad).unwrap();
            let error = codes.take(&one.secret, at(101)).unwrap_err();
            assert!(matches!(error, CodesError::Damaged(..)), "{byte}: {error}");
            fs::write(codes.path(), &good[..byte]).unwrap();
            assert!(codes.take(&one.secret, at(101)).is_err(), "cut at {byte}");
        }
    }
}

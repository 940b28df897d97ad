//! The text that lets one in, once: a node into a cluster, or a cluster into a witness.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use thiserror::Error;

use crate::base32::{self, Base32Error};
use crate::fingerprint::Fingerprint;

/// Addresses in a code at most.
pub const ADDRESSES_MAX: usize = 16;
const ADDRESS_BYTES_MAX: usize = 255;
/// Digits of the longest code, and white space in it.
const TEXT_BYTES_MAX: usize = 16 << 10;
/// Version of the form that is written; the only one that is read.
const VERSION: u8 = 1;

/// What a code is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeKind {
    /// A node joins a cluster.
    Join,
    /// A cluster is let in at a witness.
    Enrol,
}

impl CodeKind {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Join => "K2JOIN",
            Self::Enrol => "K2WITNESS",
        }
    }
}

/// Bytes that nobody guesses.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret(pub [u8; 16]);

impl Secret {
    /// A fresh one.
    ///
    /// # Errors
    /// If there are no random numbers.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// A one-time code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code {
    /// What it is for.
    pub kind: CodeKind,
    /// Where to go, `HOST:PORT`, in the order in which to try.
    pub addresses: Vec<String>,
    /// How the server is known: by the authority that issued its certificate, or for a witness by
    /// its certificate.
    pub fingerprint: Fingerprint,
    /// What lets in.
    pub secret: Secret,
    /// Until when, in seconds since 1970.
    pub expires_unix_seconds: u64,
}

/// Why a text is no code.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CodeError {
    /// It does not begin as one.
    #[error(
        "this is not a code: one for a node begins with {}, one for a witness with {}",
        CodeKind::Join.prefix(),
        CodeKind::Enrol.prefix()
    )]
    Prefix,
    /// It is one for something else.
    #[error("this code is for {0}")]
    Kind(&'static str),
    /// It has a character that codes never have.
    #[error("a code has no {0:?}: it was changed on the way")]
    Character(char),
    /// It is incomplete or has a mistake.
    #[error("the code is incomplete or was changed on the way: copy it again")]
    Sum,
    /// Another version of the program made it.
    #[error(
        "the code has form {0}; form {VERSION} is accepted: use the same version of the program"
    )]
    Version(u8),
    /// Its sum is right, but not what it says.
    #[error("the code is malformed in {0}")]
    Field(&'static str),
    /// It is over.
    #[error("the code has expired: ask for a new one")]
    Expired,
}

impl Code {
    /// A fresh code of this kind, good for `life` from now.
    ///
    /// # Errors
    /// If there are no random numbers.
    ///
    /// # Panics
    /// If there are more than [`ADDRESSES_MAX`] addresses, or one is longer than 255 bytes.
    pub fn new(
        kind: CodeKind,
        addresses: Vec<String>,
        fingerprint: Fingerprint,
        life: Duration,
        now: SystemTime,
    ) -> Result<Self, getrandom::Error> {
        assert!(addresses.len() <= ADDRESSES_MAX, "too many addresses");
        let long = |address: &String| address.len() > ADDRESS_BYTES_MAX;
        assert!(!addresses.iter().any(long), "an address is too long");
        Ok(Self {
            kind,
            addresses,
            fingerprint,
            secret: Secret::random()?,
            expires_unix_seconds: unix_seconds(now + life),
        })
    }

    /// Reads a code that must be of this kind and good now.
    ///
    /// # Errors
    /// Why it is not.
    pub fn read(text: &str, kind: CodeKind, now: SystemTime) -> Result<Self, CodeError> {
        let code: Self = text.parse()?;
        if code.kind != kind {
            return Err(CodeError::Kind(match code.kind {
                CodeKind::Join => "a node that joins a cluster",
                CodeKind::Enrol => "a witness",
            }));
        }
        match unix_seconds(now) < code.expires_unix_seconds {
            true => Ok(code),
            false => Err(CodeError::Expired),
        }
    }

    fn body(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.push(u8::try_from(self.addresses.len()).expect("checked when it was made"));
        for address in &self.addresses {
            bytes.push(u8::try_from(address.len()).expect("checked when it was made"));
            bytes.extend_from_slice(address.as_bytes());
        }
        bytes.extend_from_slice(&self.fingerprint.0);
        bytes.extend_from_slice(&self.secret.0);
        bytes.extend_from_slice(&self.expires_unix_seconds.to_le_bytes());
        bytes
    }
}

pub(crate) fn unix_seconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

/// The sum covers what the code is for, too.
fn sum(kind: CodeKind, body: &[u8]) -> [u8; 4] {
    let sum = crc32c::crc32c(kind.prefix().as_bytes());
    crc32c::crc32c_append(sum, body).to_le_bytes()
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.body();
        bytes.extend_from_slice(&sum(self.kind, &bytes));
        write!(f, "{}{}", self.kind.prefix(), base32::encode(&bytes))
    }
}

impl FromStr for Code {
    type Err = CodeError;

    /// White space is left out: a mail program may have wrapped the line.
    fn from_str(text: &str) -> Result<Self, CodeError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(CodeError::Prefix);
        }
        let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let of_kind = |kind: CodeKind| {
            let (prefix, digits) = text.split_at_checked(kind.prefix().len())?;
            prefix
                .eq_ignore_ascii_case(kind.prefix())
                .then_some((kind, digits))
        };
        let (kind, digits) = of_kind(CodeKind::Join)
            .or_else(|| of_kind(CodeKind::Enrol))
            .ok_or(CodeError::Prefix)?;
        let bytes = base32::decode(digits).map_err(|error| match error {
            Base32Error::Character(letter) => CodeError::Character(letter),
            Base32Error::End => CodeError::Sum,
        })?;
        let (body, read_sum) = bytes.split_last_chunk::<4>().ok_or(CodeError::Sum)?;
        if *read_sum != sum(kind, body) {
            return Err(CodeError::Sum);
        }
        Reader { bytes: body }.code(kind)
    }
}

/// What is left to read of a code's body.
struct Reader<'b> {
    bytes: &'b [u8],
}

impl<'b> Reader<'b> {
    fn code(mut self, kind: CodeKind) -> Result<Code, CodeError> {
        let [version] = self.array("version")?;
        if version != VERSION {
            return Err(CodeError::Version(version));
        }
        let [count] = self.array("addresses")?;
        if usize::from(count) > ADDRESSES_MAX {
            return Err(CodeError::Field("addresses"));
        }
        let addresses = (0..count).map(|_| self.address());
        let code = Code {
            kind,
            addresses: addresses.collect::<Result<_, _>>()?,
            fingerprint: Fingerprint(self.array("fingerprint")?),
            secret: Secret(self.array("secret")?),
            expires_unix_seconds: u64::from_le_bytes(self.array("expiry")?),
        };
        match self.bytes.is_empty() {
            true => Ok(code),
            false => Err(CodeError::Field("its end")),
        }
    }

    fn address(&mut self) -> Result<String, CodeError> {
        let [length] = self.array("address")?;
        let bytes = self.take(usize::from(length), "address")?;
        let address = str::from_utf8(bytes).map_err(|_| CodeError::Field("address"))?;
        Ok(address.to_owned())
    }

    fn take(&mut self, count: usize, what: &'static str) -> Result<&'b [u8], CodeError> {
        let (taken, rest) = self
            .bytes
            .split_at_checked(count)
            .ok_or(CodeError::Field(what))?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], CodeError> {
        let taken = self.take(N, what)?;
        taken.try_into().map_err(|_| CodeError::Field(what))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn code() -> Code {
        Code {
            kind: CodeKind::Join,
            addresses: vec!["192.168.1.11:2380".into(), "[fd00::1]:2380".into()],
            fingerprint: Fingerprint([7; 32]),
            secret: Secret([9; 16]),
            expires_unix_seconds: 1000,
        }
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_code_survives_a_mail_program_and_a_telephone() {
        let text = code().to_string();
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        let wrapped: Vec<&str> = text
            .as_bytes()
            .chunks(60)
            .map(|line| str::from_utf8(line).unwrap())
            .collect();
        let mangled = format!("\t{}\r\n", wrapped.join("\r\n ").to_lowercase());
        assert_eq!(mangled.parse(), Ok(code()));
        assert_eq!(text.replace('0', "o").replace('1', "l").parse(), Ok(code()));
    }

    #[test]
    fn every_single_mistake_is_found() {
        let text = code().to_string();
        let mut letters: Vec<char> = text.chars().collect();
        for at in 0..letters.len() {
            let was = letters[at];
            for letter in "0123456789ABCDEFGHJKMNPQRSTVWXYZ".chars() {
                if letter != was {
                    letters[at] = letter;
                    let changed: String = letters.iter().collect();
                    assert!(changed.parse::<Code>().is_err(), "{changed}");
                }
            }
            letters[at] = was;
        }
        for end in 0..text.len() {
            assert!(text[..end].parse::<Code>().is_err(), "{end}");
        }
        assert!((text.clone() + "0").parse::<Code>().is_err());
        assert!((text.clone() + &text).parse::<Code>().is_err());
    }

    #[test]
    fn an_error_says_what_is_wrong() {
        let text = code().to_string();
        let error = |text: &str| text.parse::<Code>().unwrap_err();
        assert_eq!(error("K3S10abc"), CodeError::Prefix);
        assert_eq!(error(&text.replace('7', "ü")), CodeError::Character('ü'));
        assert_eq!(error(&text[..text.len() - 8]), CodeError::Sum);
        let newer = [&[2_u8][..], &sum(CodeKind::Join, &[2])[..]].concat();
        let newer = format!("K2JOIN{}", base32::encode(&newer));
        assert_eq!(error(&newer), CodeError::Version(2));
    }

    #[test]
    fn a_code_is_read_for_its_purpose_and_until_its_end() {
        let text = code().to_string();
        let read = |kind, now| Code::read(&text, kind, at(now));
        assert_eq!(read(CodeKind::Join, 999), Ok(code()));
        assert_eq!(read(CodeKind::Join, 1000), Err(CodeError::Expired));
        let other = Err(CodeError::Kind("a node that joins a cluster"));
        assert_eq!(read(CodeKind::Enrol, 999), other);
    }

    proptest! {
        #[test]
        fn every_code_comes_back(
            enrols: bool,
            addresses in prop::collection::vec(".{0,63}", 0..ADDRESSES_MAX),
            fingerprint: [u8; 32],
            secret: [u8; 16],
            expires_unix_seconds: u64,
        ) {
            let code = Code {
                kind: if enrols { CodeKind::Enrol } else { CodeKind::Join },
                addresses,
                fingerprint: Fingerprint(fingerprint),
                secret: Secret(secret),
                expires_unix_seconds,
            };
            prop_assert_eq!(code.to_string().parse(), Ok(code));
        }
    }
}

//! Bytes as digits and letters that survive being copied, wrapped and read aloud: Crockford's
//! alphabet, which has no I, L, O and U.

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// The bytes as text. The last digit is filled up with zeros.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 8 / 5 + 1);
    let (mut bits, mut count) = (0_u32, 0);
    for byte in bytes {
        bits = bits << 8 | u32::from(*byte);
        count += 8;
        while count >= 5 {
            count -= 5;
            text.push(digit(bits >> count));
        }
    }
    if count > 0 {
        text.push(digit(bits << (5 - count)));
    }
    text
}

fn digit(bits: u32) -> char {
    char::from(ALPHABET[(bits & 31) as usize])
}

/// Why a text is not what [`encode`] writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Base32Error {
    /// It has this character.
    Character(char),
    /// It ends within a byte, or its last digit is not filled up with zeros.
    End,
}

/// Reads the text: small letters count as capitals, O as 0, I and L as 1.
///
/// # Errors
/// If it is no such text. Each sequence of bytes has one, but for letters that look alike.
pub(crate) fn decode(text: &str) -> Result<Vec<u8>, Base32Error> {
    let mut bytes = Vec::with_capacity(text.len() * 5 / 8);
    let (mut bits, mut count) = (0_u32, 0);
    for letter in text.chars() {
        let value = value(letter).ok_or(Base32Error::Character(letter))?;
        bits = bits << 5 | value;
        count += 5;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
        }
        // What is left over of it.
        bits &= (1 << count) - 1;
    }
    match bits == 0 && count < 5 {
        true => Ok(bytes),
        false => Err(Base32Error::End),
    }
}

fn value(letter: char) -> Option<u32> {
    let letter = match letter.to_ascii_uppercase() {
        'O' => '0',
        'I' | 'L' => '1',
        letter => letter,
    };
    let at = ALPHABET
        .iter()
        .position(|known| char::from(*known) == letter)?;
    u32::try_from(at).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn letters_that_look_alike_are_taken_for_each_other() {
        assert_eq!(decode("oO00"), Ok(vec![0, 0]));
        assert_eq!(decode("iIlL1111"), decode("11111111"));
        assert_eq!(decode("1U"), Err(Base32Error::Character('U')));
        assert_eq!(encode(&[0xff, 0]), "ZW00");
        for cut in ["ZW0", "Z", "ZW000000Z", "ZW01"] {
            assert_eq!(decode(cut), Err(Base32Error::End), "{cut}");
        }
    }

    proptest! {
        #[test]
        fn bytes_come_back(bytes: Vec<u8>) {
            prop_assert_eq!(decode(&encode(&bytes)), Ok(bytes.clone()));
            prop_assert_eq!(decode(&encode(&bytes).to_lowercase()), Ok(bytes));
        }
    }
}

//! Just enough Protocol Buffers to ask and to read what is needed of an answer.

/// A message being written.
#[derive(Default)]
pub(crate) struct Message(pub(crate) Vec<u8>);

impl Message {
    pub(crate) fn bytes(mut self, field: u8, value: &[u8]) -> Self {
        if !value.is_empty() {
            self.0.push(field << 3 | 2);
            put_varint(&mut self.0, value.len() as u64);
            self.0.extend_from_slice(value);
        }
        self
    }

    pub(crate) fn message(mut self, field: u8, value: &Self) -> Self {
        self.0.push(field << 3 | 2);
        put_varint(&mut self.0, value.0.len() as u64);
        self.0.extend_from_slice(&value.0);
        self
    }

    pub(crate) fn int(mut self, field: u8, value: i64) -> Self {
        if value != 0 {
            self.0.push(field << 3);
            put_varint(&mut self.0, value.cast_unsigned());
        }
        self
    }

    /// An integer that is written though it is 0: members of a oneof.
    pub(crate) fn present(mut self, field: u8, value: i64) -> Self {
        self.0.push(field << 3);
        put_varint(&mut self.0, value.cast_unsigned());
        self
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A field that was read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Field<'a> {
    Int(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message; ends early on what it cannot read.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, Field<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let tag = self.varint()?;
        let field = match tag & 7 {
            0 => Field::Int(self.varint()?),
            2 => {
                let len = usize::try_from(self.varint()?).ok()?;
                let (value, rest) = self.0.split_at_checked(len)?;
                self.0 = rest;
                Field::Bytes(value)
            }
            _ => return None,
        };
        Some((tag >> 3, field))
    }
}

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// The number in a field, 0 if it is not there.
    pub(crate) fn int_of(message: &'a [u8], field: u64) -> i64 {
        let found = Self(message).find_map(|(number, value)| match value {
            Field::Int(value) if number == field => Some(value.cast_signed()),
            _ => None,
        });
        found.unwrap_or_default()
    }

    /// The bytes in a field, empty if it is not there.
    pub(crate) fn bytes_of(message: &'a [u8], field: u64) -> &'a [u8] {
        let found = Self(message).find_map(|(number, value)| match value {
            Field::Bytes(value) if number == field => Some(value),
            _ => None,
        });
        found.unwrap_or_default()
    }
}

//! A protobuf message as its fields in their order (the wire format of protobuf.dev, "Encoding"): for the few messages of etcd that
//! are read and written here without a schema.

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field<'a> {
    /// A varint.
    Number(u64),
    /// A string, bytes, or a message within.
    Bytes(&'a [u8]),
    /// Four or eight bytes of a fixed length: no message that is read here has one.
    Fixed,
}

/// The fields of a message with their numbers. Ends with one `None` within where the bytes are no message.
#[derive(Debug, Clone)]
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Of this message.
    pub fn of(message: &'a [u8]) -> Self {
        Self(message)
    }

    fn read(&mut self) -> Option<(u64, Field<'a>)> {
        let (key, rest) = varint(self.0)?;
        let (field, rest) = match key & 7 {
            0 => {
                let (value, rest) = varint(rest)?;
                (Field::Number(value), rest)
            }
            1 => (Field::Fixed, rest.get(8..)?),
            2 => {
                let (length, rest) = varint(rest)?;
                let (bytes, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
                (Field::Bytes(bytes), rest)
            }
            5 => (Field::Fixed, rest.get(4..)?),
            _ => return None,
        };
        self.0 = rest;
        Some((key >> 3, field))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u64, Field<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let read = self.read();
        if read.is_none() {
            self.0 = &[];
        }
        Some(read)
    }
}

/// A message that is being written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message(Vec<u8>);

impl Message {
    /// Adds a varint.
    #[must_use]
    pub fn number(mut self, field: u64, value: u64) -> Self {
        self.varint(field << 3);
        self.varint(value);
        self
    }

    /// Adds bytes, or a message within.
    #[must_use]
    pub fn bytes(mut self, field: u64, bytes: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    /// All of it.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f).checked_shl(u32::try_from(7 * at).ok()?)?;
        if byte & 0x80 == 0 {
            return Some((value, &bytes[at + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(message: &[u8]) -> Option<Vec<(u64, Field<'_>)>> {
        Fields::of(message).collect()
    }

    #[test]
    fn what_is_written_is_read() {
        let inner = Message::default().number(1, 0).finish();
        let message = Message::default().number(1, u64::MAX).number(300, 127).bytes(2, &inner).bytes(3, b"").finish();
        let all = [
            (1, Field::Number(u64::MAX)),
            (300, Field::Number(127)),
            (2, Field::Bytes(&[8, 0])),
            (3, Field::Bytes(b"")),
        ];
        assert_eq!(read(&message).as_deref(), Some(&all[..]));
        // Fields of a fixed length are stepped over.
        let fixed = [9, 1, 2, 3, 4, 5, 6, 7, 8, 21, 1, 2, 3, 4, 8, 5];
        assert_eq!(read(&fixed), Some(vec![(1, Field::Fixed), (2, Field::Fixed), (1, Field::Number(5))]));
    }

    #[test]
    fn what_is_no_message_is_known_by_its_end() {
        let message = Message::default().number(1, 1 << 40).bytes(2, b"abc").finish();
        let whole = read(&message).map_or(0, |fields| fields.len());
        assert_eq!(whole, 2);
        for length in 1..message.len() {
            let cut = read(&message[..length]);
            assert!(cut.is_none_or(|fields| fields.len() < 2), "{length}");
        }
        assert_eq!(read(&[0x0b]), None, "a group");
        assert_eq!(
            read(&[8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
            None,
            "a number too long"
        );
        assert_eq!(read(&[0x12, 0xff, 0xff, 0xff, 0xff, 0x0f, 0]), None, "a length beyond the end");
    }
}

//! Compact bytes for what is remembered: small numbers take one byte, texts their length and
//! themselves.
//!
//! Invariant: a [`Reader`] never panics and never allocates more than the bytes that it was given
//! could fill; bytes that make no sense are [`Damaged`].

use super::imprint::Imprint;

/// Remembered bytes that make no sense. What they stood for is evaluated anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what was remembered of an earlier evaluation is damaged")]
pub(crate) struct Damaged;

/// Appends values to bytes.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    pub(crate) bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn byte(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    pub(crate) fn flag(&mut self, flag: bool) {
        self.bytes.push(u8::from(flag));
    }

    /// A number; seven bits a byte, the lowest first.
    pub(crate) fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.bytes.push((number as u8) | 0x80);
            number >>= 7;
        }
        self.bytes.push(number as u8);
    }

    pub(crate) fn count(&mut self, count: usize) {
        self.number(count as u64);
    }

    /// A number with a sign; small ones of either sign are short.
    pub(crate) fn signed(&mut self, number: i64) {
        self.number(((number << 1) ^ (number >> 63)) as u64);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.blob(text.as_bytes());
    }

    pub(crate) fn blob(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn imprint(&mut self, imprint: Imprint) {
        self.bytes.extend_from_slice(imprint.bytes());
    }

    /// A list, each item written by `write`.
    pub(crate) fn list<T>(
        &mut self,
        items: impl ExactSizeIterator<Item = T>,
        mut write: impl FnMut(&mut Self, T),
    ) {
        self.count(items.len());
        for item in items {
            write(self, item);
        }
    }
}

/// Takes values from bytes, in the order in which they were written.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Whether everything was taken.
    pub(crate) fn is_done(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Damaged> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or(Damaged)?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Damaged> {
        let (first, rest) = self.rest.split_first().ok_or(Damaged)?;
        self.rest = rest;
        Ok(*first)
    }

    pub(crate) fn flag(&mut self) -> Result<bool, Damaged> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Damaged),
        }
    }

    pub(crate) fn number(&mut self) -> Result<u64, Damaged> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Damaged)
    }

    pub(crate) fn small(&mut self) -> Result<u32, Damaged> {
        u32::try_from(self.number()?).map_err(|_| Damaged)
    }

    /// How many items follow; each takes a byte at least, so there are no more than bytes.
    pub(crate) fn count(&mut self) -> Result<usize, Damaged> {
        let count = usize::try_from(self.number()?).map_err(|_| Damaged)?;
        if count <= self.rest.len() { Ok(count) } else { Err(Damaged) }
    }

    pub(crate) fn signed(&mut self) -> Result<i64, Damaged> {
        let number = self.number()?;
        Ok(((number >> 1) as i64) ^ -((number & 1) as i64))
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, Damaged> {
        std::str::from_utf8(self.blob()?).map_err(|_| Damaged)
    }

    pub(crate) fn blob(&mut self) -> Result<&'a [u8], Damaged> {
        let count = self.count()?;
        self.take(count)
    }

    pub(crate) fn imprint(&mut self) -> Result<Imprint, Damaged> {
        let bytes = self.take(Imprint::LEN)?;
        bytes.try_into().map(Imprint::from_bytes).map_err(|_| Damaged)
    }

    /// A list, each item taken by `read`.
    pub(crate) fn list<T>(
        &mut self,
        mut read: impl FnMut(&mut Self) -> Result<T, Damaged>,
    ) -> Result<Vec<T>, Damaged> {
        let count = self.count()?;
        let mut out = Vec::with_capacity(count.min(LIST_RESERVED_MAX));
        for _ in 0..count {
            out.push(read(self)?);
        }
        Ok(out)
    }
}

/// Most items for which memory is taken before they are read.
const LIST_RESERVED_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut writer = Writer::default();
        for number in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            writer.number(number);
        }
        for number in [0, -1, 1, 63, -64, 64, i64::MIN, i64::MAX] {
            writer.signed(number);
        }
        writer.text("häuser");
        writer.flag(true);
        writer.imprint(Imprint::of(b"x"));
        writer.list([1u64, 2, 3].iter(), |w, n| w.number(*n));
        let mut reader = Reader::new(&writer.bytes);
        for number in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            assert_eq!(reader.number(), Ok(number));
        }
        for number in [0, -1, 1, 63, -64, 64, i64::MIN, i64::MAX] {
            assert_eq!(reader.signed(), Ok(number));
        }
        assert_eq!(reader.text(), Ok("häuser"));
        assert_eq!(reader.flag(), Ok(true));
        assert_eq!(reader.imprint(), Ok(Imprint::of(b"x")));
        assert_eq!(reader.list(Reader::number), Ok(vec![1, 2, 3]));
        assert!(reader.is_done());
    }

    #[test]
    fn nonsense_is_damaged() {
        let check = |bytes: &[u8]| {
            assert_eq!(Reader::new(bytes).text(), Err(Damaged), "{bytes:?}");
        };
        check(&[]);
        check(&[2, b'a']);
        check(&[1, 0xff]);
        check(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(Reader::new(&[2]).flag(), Err(Damaged));
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x7f]).small(), Err(Damaged));
    }
}

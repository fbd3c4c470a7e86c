//! Columns of numbers and records in one run of bytes, read where they lie.
//!
//! Layout: sections one after the other, then a table of (offset, length) pairs, then the number
//! of sections; all numbers little endian. A column of numbers is one section of `u32`s; a column
//! of records is two, offsets and bytes; a column of lists is two, offsets and numbers.
//! Whoever opens columns has checked that the bytes are whole (by length and checksum); what is
//! checked here is only that sections lie inside of them, so that no reading goes astray.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Bytes that are shared and do not change, such as a mapped file.
#[derive(Clone)]
pub struct SharedBytes(Arc<dyn AsRef<[u8]> + Send + Sync>);

impl SharedBytes {
    /// Wraps an owner of bytes.
    pub fn new(owner: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        Self(Arc::new(owner))
    }

    /// The bytes.
    pub fn get(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

impl fmt::Debug for SharedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.get().len())
    }
}

/// A part of shared bytes.
struct Part {
    whole: SharedBytes,
    range: Range<usize>,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        self.whole.get().get(self.range.clone()).unwrap_or_default()
    }
}

/// Writes columns in a fixed order, which is how they are found again.
#[derive(Debug, Default)]
pub struct ColumnWriter {
    bytes: Vec<u8>,
    sections: Vec<Range<usize>>,
}

/// Lists of numbers under construction, one after the other.
#[derive(Clone, Debug)]
pub struct ListWriter {
    ends: Vec<u32>,
    numbers: Vec<u32>,
}

/// Columns as they were written.
#[derive(Clone, Debug)]
pub struct Columns {
    bytes: SharedBytes,
    sections: Vec<Range<usize>>,
}

/// A column of numbers.
#[derive(Clone, Copy, Debug)]
pub struct Numbers<'a>(&'a [u8]);

/// A column of records.
#[derive(Clone, Copy, Debug)]
pub struct Records<'a> {
    offsets: Numbers<'a>,
    bytes: &'a [u8],
}

/// A column of lists of numbers.
#[derive(Clone, Copy, Debug)]
pub struct Lists<'a> {
    offsets: Numbers<'a>,
    numbers: Numbers<'a>,
}

impl ColumnWriter {
    /// Nothing yet, with room for so many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), sections: Vec::new() }
    }

    /// Begins with bytes that have a meaning of their own, without copying them.
    pub fn over(bytes: Vec<u8>) -> Self {
        let first = 0..bytes.len();
        Self { bytes, sections: vec![first] }
    }

    /// Adds a column of numbers.
    pub fn numbers(&mut self, numbers: impl IntoIterator<Item = u32>) {
        let start = self.bytes.len();
        for number in numbers {
            self.bytes.extend_from_slice(&number.to_le_bytes());
        }
        self.sections.push(start..self.bytes.len());
    }

    /// Adds a column of records; `write` appends each to the bytes that it is given.
    pub fn records<T>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        mut write: impl FnMut(T, &mut Vec<u8>),
    ) {
        let start = self.bytes.len();
        let mut ends = vec![0];
        for item in items {
            write(item, &mut self.bytes);
            ends.push(position(self.bytes.len() - start));
        }
        let section = start..self.bytes.len();
        self.numbers(ends);
        self.sections.push(section);
    }

    /// Adds a column of lists.
    pub fn lists<L: IntoIterator<Item = u32>>(&mut self, lists: impl IntoIterator<Item = L>) {
        let mut writer = ListWriter::default();
        for list in lists {
            writer.push(list);
        }
        self.list_column(&writer);
    }

    /// Adds a column of lists.
    pub fn list_column(&mut self, ListWriter { ends, numbers }: &ListWriter) {
        self.numbers(ends.iter().copied());
        self.numbers(numbers.iter().copied());
    }

    /// Adds bytes that have a meaning of their own.
    pub fn bytes(&mut self, bytes: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.sections.push(start..self.bytes.len());
    }

    /// All that was written.
    pub fn finish(mut self) -> Vec<u8> {
        for section in &self.sections {
            self.bytes.extend_from_slice(&(section.start as u64).to_le_bytes());
            self.bytes.extend_from_slice(&(section.len() as u64).to_le_bytes());
        }
        self.bytes.extend_from_slice(&(self.sections.len() as u64).to_le_bytes());
        self.bytes
    }
}

impl Default for ListWriter {
    fn default() -> Self {
        Self { ends: vec![0], numbers: Vec::new() }
    }
}

impl ListWriter {
    /// Adds a list.
    pub fn push(&mut self, list: impl IntoIterator<Item = u32>) {
        self.numbers.extend(list);
        self.ends.push(position(self.numbers.len()));
    }

    /// All lists.
    pub fn iter(&self) -> impl Iterator<Item = &[u32]> {
        let ranges = self.ends.windows(2).map(|ends| match ends {
            [start, end] => *start as usize..*end as usize,
            _ => 0..0,
        });
        ranges.map(|range| self.numbers.get(range).unwrap_or_default())
    }
}

fn position(at: usize) -> u32 {
    u32::try_from(at).expect("a column of a graph that fits in memory is below 4 GiB")
}

impl Columns {
    /// Opens bytes that [`ColumnWriter::finish`] returned, or `None` where they are not that.
    pub fn open(bytes: SharedBytes) -> Option<Self> {
        let all = bytes.get();
        let rest = all.len().checked_sub(8)?;
        let count = usize::try_from(u64_at(all, rest)?).ok()?;
        let table = rest.checked_sub(count.checked_mul(16)?)?;
        let mut sections = Vec::with_capacity(count);
        for number in 0..count {
            let start = usize::try_from(u64_at(all, table + number * 16)?).ok()?;
            let length = usize::try_from(u64_at(all, table + number * 16 + 8)?).ok()?;
            let section = start..start.checked_add(length)?;
            if section.end > table {
                return None;
            }
            sections.push(section);
        }
        Some(Self { bytes, sections })
    }

    /// How many bytes they take.
    pub(super) fn byte_count(&self) -> usize {
        self.bytes.get().len()
    }

    /// How many sections there are.
    pub fn section_count(&self) -> usize {
        self.sections.len()
    }

    /// The bytes of a section; none for one that does not exist.
    pub fn bytes(&self, section: usize) -> &[u8] {
        let range = self.sections.get(section).cloned().unwrap_or_default();
        self.bytes.get().get(range).unwrap_or_default()
    }

    /// The bytes of a section, which keep the whole alive.
    pub fn shared(&self, section: usize) -> SharedBytes {
        let range = self.sections.get(section).cloned().unwrap_or_default();
        SharedBytes::new(Part { whole: self.bytes.clone(), range })
    }

    /// The column of numbers in a section.
    pub fn numbers(&self, section: usize) -> Numbers<'_> {
        Numbers(self.bytes(section))
    }

    /// The column of records in two sections.
    pub fn records(&self, section: usize) -> Records<'_> {
        Records { offsets: self.numbers(section), bytes: self.bytes(section + 1) }
    }

    /// The column of lists in two sections.
    pub fn lists(&self, section: usize) -> Lists<'_> {
        Lists { offsets: self.numbers(section), numbers: self.numbers(section + 1) }
    }
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

impl<'a> Numbers<'a> {
    /// The number at an index.
    pub fn get(self, index: usize) -> Option<u32> {
        let bytes = self.0.get(index.checked_mul(4)?..)?.first_chunk()?;
        Some(u32::from_le_bytes(*bytes))
    }

    /// How many there are.
    pub fn len(self) -> usize {
        self.0.len() / 4
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0.len() < 4
    }

    /// All of them.
    pub fn iter(self) -> impl Iterator<Item = u32> + 'a {
        self.0.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes))
    }

    fn slice(self, range: Range<usize>) -> Self {
        Self(self.0.get(range.start * 4..range.end * 4).unwrap_or_default())
    }

    fn range(self, index: usize) -> Option<Range<usize>> {
        let (start, end) = (self.get(index)? as usize, self.get(index + 1)? as usize);
        (start <= end).then_some(start..end)
    }
}

impl<'a> Records<'a> {
    /// The record at an index.
    pub fn get(self, index: usize) -> Option<&'a [u8]> {
        self.bytes.get(self.offsets.range(index)?)
    }

    /// The record at an index as text; empty where it is none.
    pub fn text(self, index: usize) -> &'a str {
        self.get(index).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }

    /// How many there are.
    pub fn len(self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

impl<'a> Lists<'a> {
    /// The list at an index; empty for one that does not exist.
    pub fn get(self, index: usize) -> Numbers<'a> {
        let range = self.offsets.range(index);
        range.map_or(Numbers(&[]), |range| self.numbers.slice(range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written() -> Vec<u8> {
        let mut writer = ColumnWriter::default();
        writer.numbers([7, 8]);
        writer.records(["", "ab", "c"], |text, out| out.extend_from_slice(text.as_bytes()));
        writer.lists([vec![1, 2, 3], vec![], vec![4]]);
        writer.bytes(b"end");
        writer.finish()
    }

    #[test]
    fn columns_come_back() {
        let columns = Columns::open(SharedBytes::new(written())).expect("whole");
        assert_eq!(columns.section_count(), 6);
        assert_eq!(columns.numbers(0).iter().collect::<Vec<_>>(), [7, 8]);
        assert_eq!(columns.numbers(0).get(2), None);
        let records = columns.records(1);
        assert_eq!((records.len(), records.text(0), records.text(1)), (3, "", "ab"));
        assert_eq!((records.get(2), records.get(3)), (Some(&b"c"[..]), None));
        let lists = columns.lists(3);
        let all: Vec<Vec<u32>> = (0..4).map(|i| lists.get(i).iter().collect()).collect();
        assert_eq!(all, [vec![1, 2, 3], vec![], vec![4], vec![]]);
        assert_eq!(columns.bytes(5), b"end");
        assert_eq!(columns.bytes(6), b"");
    }

    #[test]
    fn bytes_cut_anywhere_never_panic() {
        let whole = written();
        for length in 0..whole.len() {
            let cut = whole.get(..length).expect("within").to_vec();
            if let Some(columns) = Columns::open(SharedBytes::new(cut)) {
                for section in 0..8 {
                    let _ = columns.records(section).get(0);
                    let _ = columns.lists(section).get(1).iter().count();
                }
            }
        }
    }
}

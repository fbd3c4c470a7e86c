//! Which lines of a text changed: the stretch between the first and the last that differ.

use std::collections::HashMap;
use std::fmt;

use maestro_core::Digest;
use maestro_core::key::InputPart;
use serde::Serialize;

use super::{Explanation, Root};

/// Largest file whose lines are compared, in bytes.
const BYTES_MAX: usize = 16 << 20;

/// A stretch of lines of the new text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Lines {
    /// The first line that differs, from 1; one past the end where only lines at the end are gone.
    pub first: u32,
    /// The last line that differs; before `first` where lines are gone and none came.
    pub last: u32,
}

impl Lines {
    /// The lines in which `new` differs from `old`; `None` if they are equal or no texts.
    pub fn changed(old: &[u8], new: &[u8]) -> Option<Self> {
        let texts = [old, new];
        if old == new || texts.iter().any(|text| text.len() > BYTES_MAX || text.contains(&0)) {
            return None;
        }
        let lines =
            |text| -> Vec<&[u8]> { <[u8]>::split_inclusive(text, |b| *b == b'\n').collect() };
        let (old, new) = (lines(old), lines(new));
        let same = old.iter().zip(&new).take_while(|(left, right)| left == right).count();
        let rest = old.len().min(new.len()) - same;
        let ends = old.iter().rev().zip(new.iter().rev()).take(rest);
        let tail = ends.take_while(|(left, right)| left == right).count();
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Some(Self { first: number(same).saturating_add(1), last: number(new.len() - tail) })
    }
}

impl fmt::Display for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.last > self.first {
            true => write!(f, "{}-{}", self.first, self.last),
            false => write!(f, "{}", self.first),
        }
    }
}

/// Looks up which lines of changed sources differ, as far as `read` knows the contents.
pub fn with_lines(
    explanations: &mut [Explanation],
    mut read: impl FnMut(&Digest) -> Option<Vec<u8>>,
) {
    let mut known: HashMap<(Digest, Digest), Option<Lines>> = HashMap::new();
    for root in explanations.iter_mut().flat_map(Explanation::roots_mut) {
        if let Root::Source { content: Some((old, new)), lines, .. } = root {
            let found = known
                .entry((*old, *new))
                .or_insert_with(|| Lines::changed(&read(old)?, &read(new)?));
            lines.clone_from(found);
        }
    }
}

/// The contents of a file that was one before and is one now.
pub(super) fn contents(old: Option<InputPart>, new: Option<InputPart>) -> Option<(Digest, Digest)> {
    match (old?, new?) {
        (InputPart::File { digest: old, .. }, InputPart::File { digest: new, .. }) => {
            Some((old, new))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::Lines;

    #[test]
    fn the_stretch_that_differs_is_named() {
        let check = |old: &str, new: &str, want: Option<&str>| {
            let got = Lines::changed(old.as_bytes(), new.as_bytes()).map(|l| l.to_string());
            assert_eq!(got.as_deref(), want, "{old:?} to {new:?}");
        };
        check("a\nb\nc\n", "a\nb\nc\n", None);
        check("a\nb\nc\n", "a\nX\nc\n", Some("2"));
        check("a\nb\nc\n", "X\nb\nY\n", Some("1-3"));
        check("a\nb\nc\n", "a\nc\n", Some("2"));
        check("a\nc\n", "a\nb\nb\nc\n", Some("2-3"));
        check("a\na\na\n", "a\na\n", Some("3"));
        check("a\na\n", "a\na\na\n", Some("3"));
        check("a", "a\n", Some("1"));
        check("", "a\n", Some("1"));
        check("a\n", "", Some("1"));
        check("a\0", "b", None);
    }
}

//! The difference of two texts, line by line, as `diff -u` prints it.

use std::fmt::Write as _;

/// Lines around a change.
const CONTEXT: usize = 3;

/// Largest table of the comparison; texts that need a larger one are shown as replaced whole.
const CELLS_MAX: usize = 16 << 20;

/// How a line takes part in a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Both,
    Old,
    New,
}

/// The unified difference; empty if the texts are equal.
pub fn unified(name: &str, old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let script = script(&old, &new);
    let changed: Vec<usize> =
        (0..script.len()).filter(|at| script.get(*at).is_some_and(|s| s.0 != Side::Both)).collect();
    let (Some(first), Some(_)) = (changed.first(), changed.last()) else { return String::new() };
    let mut out = format!("--- a/{name}\n+++ b/{name}\n");
    let mut start = first.saturating_sub(CONTEXT);
    let mut end = *first;
    for at in changed.iter().copied().chain([usize::MAX]) {
        if at > end.saturating_add(2 * CONTEXT + 1) {
            hunk(&mut out, &script, start, (end + CONTEXT + 1).min(script.len()));
            start = at.saturating_sub(CONTEXT);
        }
        end = at;
    }
    out
}

fn hunk(out: &mut String, script: &[(Side, &str)], start: usize, end: usize) {
    let count = |part: &[(Side, &str)], without: Side| {
        part.iter().filter(|(side, _)| *side != without).count()
    };
    let (before, part) =
        (script.get(..start).unwrap_or_default(), script.get(start..end).unwrap_or_default());
    let range = |without: Side| {
        let lines = count(part, without);
        let first = count(before, without) + usize::from(lines > 0);
        format!("{first},{lines}")
    };
    let _ = writeln!(out, "@@ -{} +{} @@", range(Side::New), range(Side::Old));
    for (side, line) in part {
        let mark = match side {
            Side::Both => ' ',
            Side::Old => '-',
            Side::New => '+',
        };
        let _ = writeln!(out, "{mark}{line}");
    }
}

/// The lines of both texts in order, by the longest common subsequence.
fn script<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<(Side, &'a str)> {
    let same = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (old_rest, new_rest) =
        (old.get(same..).unwrap_or_default(), new.get(same..).unwrap_or_default());
    let tail = old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(|(a, b)| a == b).count();
    let old_mid = old_rest.get(..old_rest.len() - tail).unwrap_or_default();
    let new_mid = new_rest.get(..new_rest.len() - tail).unwrap_or_default();
    let both = |lines: &[&'a str]| lines.iter().map(|line| (Side::Both, *line)).collect::<Vec<_>>();
    let mut out = both(old.get(..same).unwrap_or_default());
    out.extend(middle(old_mid, new_mid));
    out.extend(both(old_rest.get(old_rest.len() - tail..).unwrap_or_default()));
    out
}

fn middle<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<(Side, &'a str)> {
    let width = new.len() + 1;
    let cells = (old.len() + 1).saturating_mul(width);
    if cells > CELLS_MAX {
        let gone = old.iter().map(|line| (Side::Old, *line));
        return gone.chain(new.iter().map(|line| (Side::New, *line))).collect();
    }
    // `best[i * width + j]`: how much `old[i..]` and `new[j..]` have in common.
    let mut best = vec![0_u32; cells];
    let at = |best: &[u32], i: usize, j: usize| best.get(i * width + j).copied().unwrap_or(0);
    for (i, a) in old.iter().enumerate().rev() {
        for (j, b) in new.iter().enumerate().rev() {
            let value = match a == b {
                true => at(&best, i + 1, j + 1) + 1,
                false => at(&best, i + 1, j).max(at(&best, i, j + 1)),
            };
            if let Some(cell) = best.get_mut(i * width + j) {
                *cell = value;
            }
        }
    }
    let (mut i, mut j, mut out) = (0, 0, Vec::new());
    loop {
        match (old.get(i), new.get(j)) {
            (Some(a), Some(b)) if a == b => {
                out.push((Side::Both, *a));
                (i, j) = (i + 1, j + 1);
            }
            (Some(a), b) if b.is_none() || at(&best, i + 1, j) >= at(&best, i, j + 1) => {
                out.push((Side::Old, *a));
                i += 1;
            }
            (_, Some(b)) => {
                out.push((Side::New, *b));
                j += 1;
            }
            (_, None) => return out,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::unified;

    #[test]
    fn changes_are_shown_with_the_lines_around_them() {
        assert_eq!(unified("x", "a\nb\n", "a\nb\n"), "");
        let numbers = |skip: usize| {
            (1..=20).filter(|n| *n != skip).map(|n| format!("{n}\n")).collect::<String>()
        };
        assert_eq!(
            unified("x", &numbers(0), &numbers(10)),
            "--- a/x\n+++ b/x\n@@ -7,7 +7,6 @@\n 7\n 8\n 9\n-10\n 11\n 12\n 13\n"
        );
        let two = numbers(0).replace("2\n3\n", "2\nb\n").replace("17\n", "q\n");
        let got = unified("x", &numbers(0), &two);
        assert_eq!(got.matches("@@ -").count(), 2, "{got}");
        assert!(got.contains("@@ -14,7 +14,7 @@\n 14\n 15\n 16\n-17\n+q\n 18\n"), "{got}");
        assert_eq!(unified("x", "", "a\n"), "--- a/x\n+++ b/x\n@@ -0,0 +1,1 @@\n+a\n");
    }
}

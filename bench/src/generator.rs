//! Seeded random graphs that look like builds.
//!
//! A graph has packages of about fifty actions. Each action reads one source file of its own,
//! often one that its package shares, and outputs of up to two earlier actions, mostly of its own
//! package. Earlier actions are drawn with a bias towards the first ones, so that a few outputs
//! have many readers, as headers and base libraries do.
//! The same seed and size give the same graph on every machine.

/// A pseudo-random generator: SplitMix64, after Steele, Lea and Flood (2014).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    /// A number below `bound`, which is not zero; the bias is below 2^-32 for our sizes.
    fn below(&mut self, bound: usize) -> usize {
        let wide = u128::from(self.next()) * bound as u128;
        usize::try_from(wide >> 64).expect("below `bound`")
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// A number below `bound` that is small more often than not.
    fn low(&mut self, bound: usize) -> usize {
        let even = self.below(bound);
        even * even / bound
    }
}

/// Actions of one package.
const PACKAGE_ACTIONS: usize = 50;
/// Actions that the edit of a leaf runs, itself included.
const LEAF_ACTIONS: usize = 3;
/// Packages of one area, which is a folder.
const AREA_PACKAGES: usize = 20;

/// A whole build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Graph {
    /// All actions; an action reads earlier ones only.
    pub(crate) actions: Vec<Action>,
}

/// One step: hashes what it reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Action {
    /// The package it stands in.
    pub(crate) package: usize,
    /// Names of source files in its package.
    pub(crate) sources: Vec<String>,
    /// Positions of the actions whose outputs it reads.
    pub(crate) from: Vec<usize>,
}

impl Graph {
    /// A graph of `size` actions.
    pub(crate) fn generate(size: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut actions = Vec::with_capacity(size);
        for index in 0..size {
            let package = index / PACKAGE_ACTIONS;
            let first = package * PACKAGE_ACTIONS;
            let mut sources = vec![format!("s{:02}.txt", index - first)];
            if random.chance(60) {
                sources.push("shared.txt".to_owned());
            }
            let mut from = Vec::new();
            for _ in 0..random.below(3) {
                let inside = index > first && random.chance(80);
                let drawn = match (inside, index) {
                    (_, 0) => continue,
                    (true, _) => first + random.low(index - first),
                    (false, _) => random.low(index),
                };
                if !from.contains(&drawn) {
                    from.push(drawn);
                }
            }
            actions.push(Action { package, sources, from });
        }
        Self { actions }
    }

    /// The number of packages.
    pub(crate) fn packages(&self) -> usize {
        self.actions.last().map_or(0, |action| action.package + 1)
    }

    /// The folder of a package.
    pub(crate) fn folder(package: usize) -> String {
        format!("area{:03}/pkg{:02}", package / AREA_PACKAGES, package % AREA_PACKAGES)
    }

    /// The name of an action in its package.
    pub(crate) fn name(index: usize) -> String {
        format!("t{:02}", index % PACKAGE_ACTIONS)
    }

    /// The actions that run again when the own source of action `index` is edited: each output
    /// holds a hash of what was read, so that every change travels to the end.
    pub(crate) fn affected(&self, index: usize) -> usize {
        let mut affected = vec![false; self.actions.len()];
        let mut count = 0;
        for (at, action) in self.actions.iter().enumerate() {
            let reads = action.from.iter().any(|from| affected.get(*from) == Some(&true));
            if (at == index || reads)
                && let Some(mark) = affected.get_mut(at)
            {
                *mark = true;
                count += 1;
            }
        }
        count
    }

    /// An action whose edit has middling consequences: nearest to one percent of the graph.
    pub(crate) fn typical_edit(&self) -> usize {
        self.edit_of((self.actions.len() / 100).max(2))
    }

    /// An action near the end of the graph: its edit runs about three.
    pub(crate) fn leaf_edit(&self) -> usize {
        self.edit_of(LEAF_ACTIONS)
    }

    /// Of two hundred actions, the one whose edit affects a number nearest to `goal`.
    fn edit_of(&self, goal: usize) -> usize {
        let candidates = (0..self.actions.len()).step_by((self.actions.len() / 200).max(1));
        candidates.min_by_key(|index| self.affected(*index).abs_diff(goal)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_decides_the_graph() {
        assert_eq!(Graph::generate(500, 7), Graph::generate(500, 7));
        assert_ne!(Graph::generate(500, 7), Graph::generate(500, 8));
    }

    #[test]
    fn splitmix_gives_its_published_numbers() {
        let mut random = Random::new(1_234_567);
        let drawn: Vec<u64> = (0..3).map(|_| random.next()).collect();
        let expected =
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!(drawn, expected);
    }

    #[test]
    fn graphs_have_the_promised_shape() {
        let graph = Graph::generate(1_000, 1);
        assert_eq!((graph.actions.len(), graph.packages()), (1_000, 20));
        for (index, action) in graph.actions.iter().enumerate() {
            assert!(action.from.iter().all(|from| *from < index), "{index} reads a later one");
            assert!((1..=4).contains(&(action.sources.len() + action.from.len())));
        }
        let readers = |of| graph.actions.iter().filter(|action| action.from.contains(&of)).count();
        assert!((0..1_000).map(readers).max() > Some(10), "some output is popular");
    }

    #[test]
    fn an_edit_affects_its_readers_and_theirs() {
        let action = |from: &[usize]| Action {
            package: 0,
            sources: vec!["s.txt".into()],
            from: from.to_vec(),
        };
        let graph = Graph { actions: vec![action(&[]), action(&[0]), action(&[]), action(&[1])] };
        let found: Vec<usize> = (0..4).map(|index| graph.affected(index)).collect();
        assert_eq!(found, [3, 2, 1, 1]);
        assert_eq!((graph.leaf_edit(), graph.typical_edit()), (0, 1));
    }
}

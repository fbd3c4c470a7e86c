//! What a build's times say: the longest chain of work, slack, parallelism, kinds, waiting.
//!
//! Two chains matter. The *critical path* is the chain of actions, each needing the one before,
//! whose running times add up to the most: no number of processors makes the build shorter.
//! An action's *slack* is how much longer it could take before it would lie on such a chain.
//! *Waiting* is the time between an action's last need and its start: too few job slots.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::{Action, Build};

/// Most actions in the list of slow ones.
const SLOWEST_MAX: usize = 15;

/// Stretches of time in which parallelism is told.
const STRETCHES: usize = 60;

/// What was found.
#[derive(Debug, Serialize)]
pub struct Analysis {
    /// What was asked for.
    pub request: String,
    /// From start to end.
    pub wall_ms: u64,
    /// Until loading and analysis ended.
    pub analyzed_ms: u64,
    /// Actions that ran.
    pub ran: usize,
    /// Actions whose result was found.
    pub reused: usize,
    /// Running times of all actions together.
    pub work_ms: u64,
    /// Time that actions stood ready without a slot, together.
    pub waiting_ms: u64,
    /// Average number of actions that ran at once, from the first start to the last end.
    pub parallelism: f64,
    /// Most actions that ran at once.
    pub parallelism_max: usize,
    /// The longest chain of work.
    pub critical_path: Vec<Link>,
    /// The running times of its actions together.
    pub critical_path_ms: u64,
    /// Actions by how long they ran.
    pub slowest: Vec<Slow>,
    /// Kinds of actions by how long they ran together.
    pub kinds: Vec<Kind>,
    /// Actions at once, on average, in stretches of equal length.
    pub stretches: Vec<f64>,
    /// What would help, in sentences.
    pub advice: Vec<String>,
}

/// One action of the critical path.
#[derive(Debug, Serialize)]
pub struct Link {
    /// Its number in the build.
    pub action: u32,
    /// The target.
    pub label: String,
    /// The kind.
    pub mnemonic: String,
    /// When it began.
    pub start_ms: u64,
    /// How long it ran.
    pub duration_ms: u64,
    /// How long it stood ready before.
    pub waited_ms: u64,
}

/// One slow action.
#[derive(Debug, Serialize)]
pub struct Slow {
    /// The target.
    pub label: String,
    /// The kind.
    pub mnemonic: String,
    /// How long it ran.
    pub duration_ms: u64,
    /// How much longer it could take without making the critical path longer.
    pub slack_ms: u64,
}

/// All actions of a kind.
#[derive(Debug, Default, Serialize)]
pub struct Kind {
    /// The kind.
    pub mnemonic: String,
    /// How many ran.
    pub ran: usize,
    /// How many results were found.
    pub reused: usize,
    /// Running times together.
    pub total_ms: u64,
    /// The longest.
    pub longest_ms: u64,
}

/// Analyzes a build.
pub fn analyze(build: &Build) -> Analysis {
    let graph = Graph::of(&build.actions);
    let (before, after) = graph.longest();
    let total = |at: usize| {
        let own = build.actions.get(at).map_or(0, work);
        get(&before, at) + get(&after, at) + own
    };
    let critical_path_ms = (0..build.actions.len()).map(total).max().unwrap_or(0);
    let path = graph.path(&before, &after);
    let link = |at: &usize| {
        let action = build.actions.get(*at)?;
        Some(Link {
            action: action.id,
            label: action.label.clone(),
            mnemonic: action.mnemonic.clone(),
            start_ms: action.start_ms,
            duration_ms: action.duration_ms(),
            waited_ms: graph.waited(*at, build.analyzed_ms),
        })
    };
    let ran = build.actions.iter().filter(|action| action.ran());
    let waiting_ms = (0..build.actions.len())
        .filter(|at| build.actions.get(*at).is_some_and(Action::ran))
        .map(|at| graph.waited(at, build.analyzed_ms))
        .sum();
    let mut slowest: Vec<(usize, &Action)> =
        build.actions.iter().enumerate().filter(|(_, action)| action.ran()).collect();
    slowest.sort_by_key(|(_, action)| (std::cmp::Reverse(action.duration_ms()), action.id));
    slowest.truncate(SLOWEST_MAX);
    let (parallelism, parallelism_max, stretches) = parallelism(build);
    let mut analysis = Analysis {
        request: build.request.clone(),
        wall_ms: build.wall_ms,
        analyzed_ms: build.analyzed_ms,
        ran: ran.clone().count(),
        reused: build.actions.len() - ran.clone().count(),
        work_ms: ran.map(Action::duration_ms).sum(),
        waiting_ms,
        parallelism,
        parallelism_max,
        critical_path: path.iter().filter_map(link).collect(),
        critical_path_ms,
        slowest: slowest
            .into_iter()
            .map(|(at, action)| Slow {
                label: action.label.clone(),
                mnemonic: action.mnemonic.clone(),
                duration_ms: action.duration_ms(),
                slack_ms: critical_path_ms.saturating_sub(total(at)),
            })
            .collect(),
        kinds: kinds(&build.actions),
        stretches,
        advice: Vec::new(),
    };
    analysis.advice = advice(&analysis);
    analysis
}

fn work(action: &Action) -> u64 {
    if action.ran() { action.duration_ms() } else { 0 }
}

fn get(list: &[u64], at: usize) -> u64 {
    list.get(at).copied().unwrap_or(0)
}

/// Which action needs which, by place in the list.
struct Graph<'a> {
    actions: &'a [Action],
    needs: Vec<Vec<usize>>,
    /// Places in an order in which needs come first.
    order: Vec<usize>,
}

impl<'a> Graph<'a> {
    fn of(actions: &'a [Action]) -> Self {
        let place: HashMap<u32, usize> =
            actions.iter().enumerate().map(|(at, action)| (action.id, at)).collect();
        let needs: Vec<Vec<usize>> = actions
            .iter()
            .map(|action| action.needs.iter().filter_map(|id| place.get(id).copied()).collect())
            .collect();
        let mut waiting: Vec<usize> = needs.iter().map(Vec::len).collect();
        let mut users: Vec<Vec<usize>> = vec![Vec::new(); actions.len()];
        for (at, list) in needs.iter().enumerate() {
            for need in list {
                if let Some(users) = users.get_mut(*need) {
                    users.push(at);
                }
            }
        }
        let mut order: Vec<usize> =
            (0..actions.len()).filter(|at| waiting.get(*at) == Some(&0)).collect();
        let mut next = 0;
        while let Some(at) = order.get(next).copied() {
            next += 1;
            for user in users.get(at).map_or(&[][..], Vec::as_slice) {
                let Some(left) = waiting.get_mut(*user) else { continue };
                *left -= 1;
                if *left == 0 {
                    order.push(*user);
                }
            }
        }
        // Whatever waits in a circle, which only a damaged file has, belongs to no chain.
        Self { actions, needs, order }
    }

    fn needs(&self, at: usize) -> &[usize] {
        self.needs.get(at).map_or(&[], Vec::as_slice)
    }

    fn work(&self, at: usize) -> u64 {
        self.actions.get(at).map_or(0, work)
    }

    /// For each action, the most work in a chain before it and after it, without its own.
    fn longest(&self) -> (Vec<u64>, Vec<u64>) {
        let mut before = vec![0; self.actions.len()];
        for at in &self.order {
            let most =
                self.needs(*at).iter().map(|need| get(&before, *need) + self.work(*need)).max();
            if let Some(slot) = before.get_mut(*at) {
                *slot = most.unwrap_or(0);
            }
        }
        let mut after = vec![0; self.actions.len()];
        for at in self.order.iter().rev() {
            let own = get(&after, *at) + self.work(*at);
            for need in self.needs(*at) {
                if let Some(slot) = after.get_mut(*need) {
                    *slot = own.max(*slot);
                }
            }
        }
        (before, after)
    }

    /// The chain with the most work, in the order in which it ran; actions without work left out.
    fn path(&self, before: &[u64], after: &[u64]) -> Vec<usize> {
        let end = self
            .order
            .iter()
            .filter(|at| get(after, **at) == 0)
            .max_by_key(|at| (get(before, **at) + self.work(**at), std::cmp::Reverse(**at)));
        let (mut path, mut current) = (Vec::new(), end.copied());
        while let Some(at) = current {
            path.push(at);
            current = self
                .needs(at)
                .iter()
                .max_by_key(|need| (get(before, **need) + self.work(**need), **need))
                .copied();
        }
        path.reverse();
        path.retain(|at| self.work(*at) > 0);
        path
    }

    /// How long an action stood ready: since its last need, or since analysis.
    fn waited(&self, at: usize, analyzed_ms: u64) -> u64 {
        let last = self.needs(at).iter().filter_map(|need| self.actions.get(*need));
        let ready = last.map(|action| action.end_ms).max().unwrap_or(analyzed_ms);
        let start = self.actions.get(at).map_or(0, |action| action.start_ms);
        start.saturating_sub(ready.max(analyzed_ms))
    }
}

fn kinds(actions: &[Action]) -> Vec<Kind> {
    let mut kinds: BTreeMap<&str, Kind> = BTreeMap::new();
    for action in actions {
        let kind = kinds.entry(&action.mnemonic).or_default();
        kind.mnemonic.clone_from(&action.mnemonic);
        match action.ran() {
            true => {
                kind.ran += 1;
                kind.total_ms += action.duration_ms();
                kind.longest_ms = kind.longest_ms.max(action.duration_ms());
            }
            false => kind.reused += 1,
        }
    }
    let mut kinds: Vec<Kind> = kinds.into_values().collect();
    kinds.sort_by_key(|kind| std::cmp::Reverse(kind.total_ms));
    kinds
}

/// Actions at once: on average, at most, and by stretch.
fn parallelism(build: &Build) -> (f64, usize, Vec<f64>) {
    let ran: Vec<&Action> = build.actions.iter().filter(|action| action.ran()).collect();
    let first = ran.iter().map(|action| action.start_ms).min().unwrap_or(0);
    let last = ran.iter().map(|action| action.end_ms).max().unwrap_or(0);
    let span = last.saturating_sub(first);
    if span == 0 {
        return (0.0, ran.len().min(1), Vec::new());
    }
    let work: u64 = ran.iter().map(|action| action.duration_ms()).sum();
    let mut edges: Vec<(u64, i32)> = ran
        .iter()
        .filter(|action| action.duration_ms() > 0)
        .flat_map(|action| [(action.start_ms, 1), (action.end_ms, -1)])
        .collect();
    edges.sort_unstable();
    let (mut now, mut most) = (0_i32, 0_i32);
    for (_, step) in edges {
        now += step;
        most = most.max(now);
    }
    let width = span as f64 / STRETCHES as f64;
    let mut stretches = vec![0.0; STRETCHES];
    for action in &ran {
        let (from, to) =
            ((action.start_ms - first) as f64 / width, (action.end_ms - first) as f64 / width);
        for (index, slot) in stretches.iter_mut().enumerate().skip(from as usize) {
            let (left, right) = (index as f64, index as f64 + 1.0);
            if left >= to {
                break;
            }
            *slot += to.min(right) - from.max(left);
        }
    }
    (work as f64 / span as f64, usize::try_from(most).unwrap_or(0), stretches)
}

/// What the numbers mean for who wants a faster build.
fn advice(analysis: &Analysis) -> Vec<String> {
    let mut advice = Vec::new();
    let run_ms = analysis.wall_ms.saturating_sub(analysis.analyzed_ms);
    if analysis.ran == 0 {
        advice.push("no action ran: what is left is loading and looking up".to_owned());
        return advice;
    }
    let share = percent(analysis.critical_path_ms, run_ms);
    if share >= 75 {
        advice.push(format!(
            "the critical path is {share} % of the time after analysis: more jobs do not help; \
             make its actions shorter, or make one need less"
        ));
    } else if analysis.waiting_ms > run_ms {
        advice.push(format!(
            "actions stood ready for {} together: more jobs or faster processors help",
            time(analysis.waiting_ms)
        ));
    }
    if let Some(first) = analysis.critical_path.iter().max_by_key(|link| link.duration_ms) {
        let share = percent(first.duration_ms, analysis.critical_path_ms);
        if share >= 40 {
            advice.push(format!(
                "{} {} alone is {share} % of the critical path",
                first.mnemonic, first.label
            ));
        }
    }
    let share = percent(analysis.analyzed_ms, analysis.wall_ms);
    if share >= 30 {
        advice.push(format!("loading and analysis is {share} % of the build"));
    }
    advice
}

/// A part in percent of a whole.
pub fn percent(part: u64, whole: u64) -> u64 {
    part.saturating_mul(100).checked_div(whole).unwrap_or(0)
}

/// A time for people.
pub fn time(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..100_000 => format!("{}.{:02} s", ms / 1000, ms % 1000 / 10),
        _ => format!("{} s", ms / 1000),
    }
}

#[cfg(test)]
mod tests {
    use maestro_core::event::Outcome;

    use super::*;

    fn action(id: u32, start_ms: u64, end_ms: u64, needs: &[u32]) -> Action {
        let (label, mnemonic) = (format!("//:{id}"), "Cc".to_owned());
        let outcome = Outcome::Executed;
        Action { id, label, mnemonic, outcome, start_ms, end_ms, needs: needs.to_vec() }
    }

    fn build(actions: Vec<Action>) -> Build {
        let wall_ms = actions.iter().map(|action| action.end_ms).max().unwrap_or(0);
        Build { request: "build //...".into(), analyzed_ms: 10, wall_ms, actions }
    }

    #[test]
    fn the_longest_chain_of_work_is_the_critical_path() {
        let found = analyze(&build(vec![
            action(1, 10, 40, &[]),
            action(2, 10, 20, &[]),
            action(3, 50, 60, &[1, 2]),
            action(4, 20, 65, &[2]),
        ]));
        let path: Vec<u32> = found.critical_path.iter().map(|link| link.action).collect();
        assert_eq!((path, found.critical_path_ms), (vec![2, 4], 55));
        let slack: Vec<(&str, u64)> =
            found.slowest.iter().map(|slow| (slow.label.as_str(), slow.slack_ms)).collect();
        assert_eq!(slack, [("//:4", 0), ("//:1", 15), ("//:2", 0), ("//:3", 15)]);
        assert_eq!((found.waiting_ms, found.work_ms, found.parallelism_max), (10, 95, 2));
        assert_eq!(found.kinds[0].total_ms, 95);
    }

    #[test]
    fn results_that_were_found_do_no_work_but_connect() {
        let mut cached = action(2, 30, 31, &[1]);
        cached.outcome = Outcome::Cached;
        let found = analyze(&build(vec![action(1, 10, 30, &[]), cached, action(3, 31, 41, &[2])]));
        let path: Vec<u32> = found.critical_path.iter().map(|link| link.action).collect();
        assert_eq!((path, found.critical_path_ms), (vec![1, 3], 30));
        assert_eq!((found.ran, found.reused), (2, 1));
    }

    #[test]
    fn damaged_and_large_builds_end() {
        let circle = analyze(&build(vec![action(1, 0, 5, &[2]), action(2, 0, 5, &[1, 7])]));
        assert!(circle.critical_path.is_empty());
        let chain: Vec<Action> = (0..50_000)
            .map(|n| {
                action(
                    n,
                    u64::from(n),
                    u64::from(n) + 1,
                    &[n.saturating_sub(1)][..usize::from(n > 0)],
                )
            })
            .collect();
        assert_eq!(analyze(&build(chain)).critical_path_ms, 50_000);
        assert!(analyze(&build(Vec::new())).critical_path.is_empty());
    }
}

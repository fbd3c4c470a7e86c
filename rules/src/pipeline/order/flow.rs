//! Walks a file from its first step to its last, and says what each step follows.
//!
//! What binding adds to it is found later; see [`super`] for the rules.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;

use super::{EdgeKind, Edges};
use crate::error::Code;
use crate::pipeline::StepId;
use crate::pipeline::limits::EDGES_MAX;
use crate::pipeline::names::Names;
use crate::pipeline::report::Report;
use crate::pipeline::source::Spanned;
use crate::pipeline::template::{Included, Repeat, Step};

/// What a name means.
#[derive(Clone, Copy)]
enum Named {
    Step(StepId),
    /// By its place in the list of includes.
    Include(usize),
}

/// Steps that stand together: those of an include, or all.
struct Section {
    /// The include; none for all.
    include: Option<usize>,
    steps: Range<usize>,
    /// What each of them follows from outside, and whether `needs` says so.
    entry: Vec<StepId>,
    needed: bool,
    /// Those that no other of them follows so far.
    last: BTreeSet<StepId>,
    /// What stands above the next one: a step, or the last ones of an include.
    above: Vec<StepId>,
}

/// The order of the file, walked from its first step to its last.
pub(super) struct Flow<'a> {
    steps: &'a [Step],
    includes: &'a [Included],
    known: &'a Names,
    names: HashMap<&'a str, Named>,
    /// The file, and the includes that the present step belongs to, outermost first.
    sections: Vec<Section>,
    /// For each include that has ended: its steps that no other of it follows.
    ends: Vec<Option<Vec<StepId>>>,
    /// The include that begins next.
    next: usize,
}

impl<'a> Flow<'a> {
    pub(super) fn new(steps: &'a [Step], includes: &'a [Included], known: &'a Names) -> Self {
        let includes_named = includes.iter().enumerate().rev();
        let includes_named =
            includes_named.map(|(at, include)| (include.id.value.as_str(), Named::Include(at)));
        let steps_named = steps.iter().enumerate().rev();
        let steps_named =
            steps_named.map(|(at, step)| (step.id.value.as_str(), Named::Step(StepId::new(at))));
        let all = Section::new(None, 0..steps.len());
        Self {
            steps,
            includes,
            known,
            names: includes_named.chain(steps_named).collect(),
            sections: vec![all],
            ends: vec![None; includes.len()],
            next: 0,
        }
    }

    pub(super) fn edges(mut self, report: &mut Report) -> Edges {
        let mut edges = Edges::new(self.steps.len());
        for (at, step) in self.steps.iter().enumerate() {
            self.begin(at, report);
            let own = StepId::new(at);
            for (from, kind) in self.follows(own, step, report) {
                edges.add(from, own, kind);
            }
            self.end(own, edges.before(own));
            if edges.list.len() > EDGES_MAX {
                let message = format!("steps follow each other in more than {EDGES_MAX} ways");
                report
                    .error(Code::PipelineLimit, step.id.span, message)
                    .hint("put a step between, which all of some follow and all others `needs`");
                break;
            }
        }
        edges
    }

    /// What a step follows, and why.
    fn follows(&self, own: StepId, step: &Step, report: &mut Report) -> Vec<(StepId, EdgeKind)> {
        let mut found = Vec::new();
        for (_, expr) in step.expressions() {
            for name in expr.steps() {
                match self.names.get(name.value.as_str()) {
                    Some(Named::Step(id)) if *id == own => self_reference(step, name, report),
                    Some(Named::Step(id)) => found.push((*id, EdgeKind::Data)),
                    // The check of types tells.
                    Some(Named::Include(_)) | None => {}
                }
            }
        }
        for name in once(step.needs.as_deref().unwrap_or_default()) {
            let needed = self.needed(name, report);
            if needed.contains(&own) {
                let message = format!("step `{}` needs itself", step.id.value);
                report.error(Code::PipelineCycle, name.span, message);
            }
            found.extend(needed.into_iter().map(|id| (id, EdgeKind::Needs)));
        }
        let Some(section) = self.sections.last() else { return found };
        match (&step.needs, step.acts()) {
            (Some(_), _) => {}
            (None, true) => found.extend(section.last.iter().map(|id| (*id, EdgeKind::Effect))),
            (None, false) if found.is_empty() => {
                found.extend(section.above.iter().map(|id| (*id, EdgeKind::Sequence)));
            }
            (None, false) => {}
        }
        // What follows another of its include follows what the include follows.
        if !found.iter().any(|(id, _)| section.steps.contains(&id.index())) {
            let kind = match (section.needed, step.acts()) {
                (true, _) => EdgeKind::Needs,
                (false, true) => EdgeKind::Effect,
                (false, false) => EdgeKind::Sequence,
            };
            found.extend(section.entry.iter().map(|id| (*id, kind)));
        }
        found
    }

    /// The steps that a name of `needs` stands for.
    fn needed(&self, name: &Spanned<String>, report: &mut Report) -> Vec<StepId> {
        match self.names.get(name.value.as_str()) {
            Some(Named::Step(id)) => vec![*id],
            Some(Named::Include(at)) => match (self.ends.get(*at), self.includes.get(*at)) {
                (Some(Some(ends)), _) => ends.clone(),
                // It stands below: which of its steps are the last is not known yet.
                (_, Some(include)) => include.steps.clone().map(StepId::new).collect(),
                (_, None) => Vec::new(),
            },
            None if report.unread.contains(&name.value) || report.is_full() => Vec::new(),
            None => {
                self.known.absent(name, report);
                Vec::new()
            }
        }
    }

    /// Opens the includes whose first step this is.
    fn begin(&mut self, at: usize, report: &mut Report) {
        while let Some(include) = self.includes.get(self.next) {
            if include.steps.is_empty() {
                self.next += 1;
                continue;
            }
            if include.steps.start != at {
                return;
            }
            let mut section = Section::new(Some(self.next), include.steps.clone());
            let acts = self.steps.get(include.steps.clone());
            let acts = acts.is_some_and(|steps| steps.iter().any(Step::acts));
            section.needed = include.needs.is_some();
            if let Some(needs) = &include.needs {
                section.entry = once(needs).flat_map(|name| self.needed(name, report)).collect();
            }
            if let Some(outer) = self.sections.last() {
                match &include.needs {
                    Some(_) => {}
                    None if acts => section.entry.extend(&outer.last),
                    None => section.entry.extend(&outer.above),
                }
                if section.entry.is_empty() {
                    section.entry.extend(&outer.entry);
                    section.needed = outer.needed;
                }
            }
            self.sections.push(section);
            self.next += 1;
        }
    }

    /// Notes a step that follows others, and closes the includes whose last step it is.
    fn end(&mut self, own: StepId, before: &[StepId]) {
        for section in &mut self.sections {
            for id in before {
                section.last.remove(id);
            }
            section.last.insert(own);
        }
        if let Some(section) = self.sections.last_mut() {
            section.above = vec![own];
        }
        while let Some(section) = self
            .sections
            .pop_if(|section| section.include.is_some() && section.steps.end == own.index() + 1)
        {
            let ends: Vec<StepId> = section.last.into_iter().collect();
            if let Some(outer) = self.sections.last_mut() {
                outer.above.clone_from(&ends);
            }
            if let Some(place) = section.include.and_then(|at| self.ends.get_mut(at)) {
                *place = Some(ends);
            }
        }
    }
}

impl Section {
    fn new(include: Option<usize>, steps: Range<usize>) -> Self {
        let (entry, above) = (Vec::new(), Vec::new());
        Self { include, steps, entry, needed: false, last: BTreeSet::new(), above }
    }
}

/// Each name once: an include stands for many steps, and is walked once however often it is named.
fn once(names: &[Spanned<String>]) -> impl Iterator<Item = &Spanned<String>> {
    let mut seen = HashSet::new();
    names.iter().filter(move |name| seen.insert(name.value.as_str()))
}

fn self_reference(step: &Step, name: &Spanned<String>, report: &mut Report) {
    if matches!(&step.repeat, Repeat::Until { condition, .. } if condition.steps().contains(&name))
    {
        return;
    }
    let message = format!("step `{}` takes something from itself", step.id.value);
    report
        .error(Code::PipelineCycle, name.span, message)
        .hint("only `until` looks at what its own step made");
}

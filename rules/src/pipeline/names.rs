//! The names of steps, and what is to be said of one that no step has.
//!
//! A step of an included file stands behind the name of the include: `x.build` is `build` in the
//! file that `x` includes. A file sees its own steps, so that a name that stands on the other side
//! of an include is as good as none; whoever wrote it is told where it stands. Nothing is rewritten
//! by a machine: another step means something else, however similar its name.

use std::collections::BTreeSet;

use super::report::Report;
use super::source::Spanned;
use super::template::Template;
use crate::error::Code;

/// The names of all steps and includes of a pipeline.
#[derive(Default)]
pub(crate) struct Names {
    steps: BTreeSet<String>,
    includes: BTreeSet<String>,
}

impl Names {
    /// The names of a template, those among them whose steps could not be read.
    pub(crate) fn of(template: &Template, report: &Report) -> Self {
        let steps = template.steps.iter().map(|step| &step.id.value).chain(&report.unread);
        let includes = template.includes.iter().map(|include| include.id.value.clone());
        Self { steps: steps.cloned().collect(), includes: includes.collect() }
    }

    #[cfg(test)]
    pub(crate) fn among<'n>(steps: impl IntoIterator<Item = &'n str>) -> Self {
        let steps = steps.into_iter().map(str::to_owned).collect();
        Self { steps, includes: BTreeSet::new() }
    }

    /// Tells of a name that no step has.
    pub(crate) fn absent(&self, name: &Spanned<String>, report: &mut Report) {
        let (include, own) = self.split(&name.value);
        let message = match include {
            "" => format!("there is no step `{own}`"),
            _ => format!("the pipeline that `{include}` includes has no step `{own}`"),
        };
        let draft = report.error(Code::PipelineReference, name.span, message);
        if self.includes.contains(&name.value) {
            draft.hint(format!(
                "`{own}` is an include, of which others see what it declares: \
                 `steps.{own}.outputs.…`"
            ));
        } else if self.outside(include, own) {
            draft.hint(format!(
                "`{own}` stands in a file that includes this one, which sees its own steps only; \
                 hand in what it makes as a param"
            ));
        } else if let Some(inside) = self.inside(include, own) {
            draft.hint(format!(
                "`{own}` stands in the pipeline that `{inside}` includes; declare what it makes in \
                 `outputs` there, and take `steps.{inside}.outputs.…`"
            ));
        } else {
            draft.resembles(own, self.beside(include));
        }
    }

    /// The include to whose file a name belongs, and the name there.
    fn split<'n>(&self, name: &'n str) -> (&'n str, &'n str) {
        let dots = name.rmatch_indices('.').map(|(at, _)| name.split_at(at));
        let mut places = dots.filter(|(include, _)| self.includes.contains(*include));
        places.next().map_or(("", name), |(include, own)| (include, own.trim_start_matches('.')))
    }

    /// Whether a file that includes, at any distance, has a step of this name.
    fn outside(&self, include: &str, own: &str) -> bool {
        let mut around = include;
        while !around.is_empty() {
            around = self.split(around).0;
            if self.steps.contains(&behind(around, own)) {
                return true;
            }
        }
        false
    }

    /// The include of a file, by its name there, that has a step of this name.
    fn inside(&self, include: &str, own: &str) -> Option<&str> {
        let others = self.includes.iter().map(|other| (other, self.split(other)));
        let mut own_ones = others.filter(|(_, (of, _))| *of == include);
        let found = own_ones.find(|(other, _)| self.steps.contains(&behind(other, own)));
        found.map(|(_, (_, name))| name)
    }

    /// The steps and includes of one file, by their names there.
    fn beside<'n>(&'n self, include: &'n str) -> impl Iterator<Item = &'n str> {
        let names = self.steps.iter().chain(&self.includes).map(|name| self.split(name));
        names.filter(move |(of, _)| *of == include).map(|(_, own)| own)
    }
}

/// A name of an included file, as it is seen from outside.
pub(crate) fn behind(include: &str, name: &str) -> String {
    match include {
        "" => name.to_owned(),
        _ => format!("{include}.{name}"),
    }
}

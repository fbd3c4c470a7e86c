//! Checks a template as a whole: names, fields of `with`, types of expressions.
//!
//! Order and binding have been found already; this looks at what each step says.

mod guards;
mod literal;
mod whole;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use maestro_core::ActionClass;

use super::definitions::{FieldDefinition, FieldKind, GATE, StepDefinition};
use super::expression::{Environment, Expr, ExprKind, Function, Loop, Root, Type, type_of};
use super::names::Names;
use super::report::Report;
use super::source::{Sources, Span};
use super::template::{Besides, Repeat, Step, Template, Uses};
use crate::error::Code;

pub(crate) use guards::skipped_guards;

/// How a step can have ended, as expressions see it.
const STATUSES: &[&str] = &["succeeded", "failed", "skipped", "cancelled"];
/// What expressions see of the commit: texts, empty where there is no such thing.
pub const GIT_FIELDS: &[&str] =
    &["sha", "short_sha", "branch", "tag", "base", "message", "author", "repository"];
/// What expressions see of the run: texts.
const RUN_FIELDS: &[&str] = &["id", "template", "actor"];

/// What is known of the world that a pipeline runs in.
pub(crate) struct World {
    params: Type,
    /// Each step with its record.
    steps: HashMap<String, Type>,
    roots: HashMap<Root, Type>,
}

impl World {
    pub(crate) fn of(template: &Template, report: &Report) -> Self {
        let params = template.params.iter();
        let params = params.map(|param| (param.name.value.as_str(), param.kind.value_type()));
        let texts =
            |names: &[&'static str]| Type::record(names.iter().map(|name| (*name, Type::String)));
        let roots = HashMap::from([
            (Root::Git, texts(GIT_FIELDS)),
            (Root::Run, texts(RUN_FIELDS)),
            (Root::Event, Type::Any),
        ]);
        let unread = report.unread.iter().map(|name| (name.clone(), Type::Any));
        let steps = template.steps.iter().map(|step| (step.id.value.clone(), record_of(step)));
        Self { params: Type::record(params), steps: unread.chain(steps).collect(), roots }
    }
}

/// What other steps see of a step.
fn record_of(step: &Step) -> Type {
    let own = step.uses.outputs().iter();
    let own = own.map(|output| (output.name, output.kind.value_type()));
    let declared =
        step.outputs.iter().map(|output| (output.name.value.as_str(), output.kind.clone()));
    let outputs = own.chain(declared).map(|(name, kind)| {
        let kind = match step.repeat {
            Repeat::Each { .. } | Repeat::Matrix { .. } => Type::list(kind),
            Repeat::Once | Repeat::Until { .. } => kind,
        };
        (name.to_owned(), kind)
    });
    let outputs = Type::Record(Arc::new(outputs.collect::<BTreeMap<_, _>>()));
    Type::record([("status", Type::choice(STATUSES.iter().copied())), ("outputs", outputs)])
}

/// Reports everything that is wrong with what steps say.
pub(crate) fn check(template: &Template, names: &Names, sources: &Sources, report: &mut Report) {
    let world = World::of(template, report);
    whole::duplicates(template, report);
    whole::bounds(template, report);
    let mut check = Check { world: &world, names, sources, report };
    check.top(template);
    for step in &template.steps {
        if check.report.is_full() {
            return;
        }
        check.step(step);
        check.in_flow(step);
        for handler in step.on_failure.iter().chain(&step.on_cancel) {
            check.step(handler);
        }
    }
    for handler in template.on_failure.iter().chain(&template.on_cancel) {
        check.step(handler);
    }
}

struct Check<'a> {
    world: &'a World,
    names: &'a Names,
    sources: &'a Sources,
    report: &'a mut Report,
}

impl Check<'_> {
    fn type_of(
        &mut self,
        expr: &Expr,
        repeated: &Loop,
        outcome: bool,
        no_steps: Option<&'static str>,
    ) -> Type {
        let World { params, steps, roots } = self.world;
        let names = self.names;
        let env = Environment { params, steps, names, roots, repeated, outcome, no_steps };
        type_of(expr, &env, self.report)
    }

    /// What belongs to no step: no step has run when it is looked at.
    fn top(&mut self, template: &Template) {
        let early = Some("no step has run yet when this is looked at");
        let Besides { env, outputs } = &template.besides;
        for value in template.env.iter().map(|(_, value)| value).chain(env) {
            let found = self.type_of(value, &Loop::None, false, early);
            self.part_of_text(&found, value.span, "a variable");
        }
        if let Some(group) = template.concurrency.as_ref().map(|one| &one.group) {
            let found = self.type_of(group, &Loop::None, false, early);
            self.part_of_text(&found, group.span, "a group");
        }
        let own = template.outputs.iter().map(|(_, value)| value);
        for value in own.chain(outputs).chain(&template.given) {
            self.type_of(value, &Loop::None, false, None);
        }
    }

    fn step(&mut self, step: &Step) {
        if matches!(&step.uses, Uses::Step(definition) if definition.name == GATE) {
            self.gate(step);
        }
        let repeated = self.repeated(step);
        self.arguments(step, &repeated);
        if let Some(condition) = &step.condition {
            let found = self.type_of(condition, &Loop::None, true, None);
            self.boolean(&found, condition, "`if`");
        }
        for (_, value) in &step.env {
            let found = self.type_of(value, &repeated, false, None);
            self.part_of_text(&found, value.span, "a variable");
        }
        for (_, value) in &step.secrets {
            let found = self.type_of(value, &repeated, false, None);
            if found != Type::Secret && !matches!(value.kind, ExprKind::Literal(_)) {
                self.report
                    .error(
                        Code::PipelineSecret,
                        value.span,
                        format!("a secret is named here, and this is {found}"),
                    )
                    .hint("write its name, or a param of type `secret`");
            }
        }
        for value in &step.egress {
            let found = self.type_of(value, &repeated, false, None);
            self.part_of_text(&found, value.span, "a host");
        }
        if let Some(group) = step.concurrency.as_ref().map(|one| &one.group) {
            let found = self.type_of(group, &repeated, false, None);
            self.part_of_text(&found, group.span, "a group");
        }
        self.outputs(step);
        self.class(step);
    }

    /// Who must agree is part of the plan, and the plan is made when the run begins.
    fn gate(&mut self, step: &Step) {
        if step.repeat != Repeat::Once {
            self.report
                .error(Code::PipelineField, step.id.span, "a gate asks once")
                .hint("`approvals` is how many people must agree")
                .hint("`approval` of a step that repeats asks once for all its instances");
        }
        for field in ["approvals", "roles", "expires"] {
            let named = step.argument(field).map(Expr::steps).unwrap_or_default();
            if let Some(name) = named.first() {
                let message = format!(
                    "`{field}` of a gate is known when the run begins, and `{}` has not run then",
                    name.value
                );
                self.report.error(Code::PipelineReference, name.span, message).hint(
                    "for each case a gate and an effect of its own can ask different people: both \
                         with the same `if`, and the effect with `needs`",
                );
            }
        }
    }

    /// What can never come about before everything has ended.
    fn in_flow(&mut self, step: &Step) {
        let Some(condition) = &step.condition else { return };
        let asks = condition.outcomes();
        if let Some((_, span)) = asks.into_iter().find(|(of, _)| *of == Function::Cancelled) {
            let message = "`cancelled()` never holds here: nothing begins once a run is cancelled";
            self.report
                .warning(Code::PipelineExpression, span, message)
                .hint("put the step into `on_cancel`");
        }
    }

    /// What repeats a step, and whether that is what it should be.
    fn repeated(&mut self, step: &Step) -> Loop {
        match &step.repeat {
            Repeat::Once => Loop::None,
            Repeat::Until { condition, .. } => {
                let found = self.type_of(condition, &Loop::Rounds, false, None);
                self.boolean(&found, condition, "`until`");
                Loop::Rounds
            }
            Repeat::Each { items, .. } => {
                let found = self.type_of(items, &Loop::None, false, None);
                let item = self.item(&found, items.span, "`foreach`");
                // Numbers and texts together: any of both.
                Loop::Items(item)
            }
            Repeat::Matrix { axes, exclude, include, .. } => {
                let early = Some(
                    "the instances of a matrix are known before any step runs; \
                                  `foreach` goes over what a step made",
                );
                let mut types = BTreeMap::new();
                for (name, values) in axes {
                    let found = self.type_of(values, &Loop::None, false, early);
                    let item = self.item(&found, values.span, "an axis");
                    types.insert(name.value.clone(), item);
                }
                for combination in exclude {
                    self.type_of(combination, &Loop::None, false, early);
                }
                for combination in include {
                    let found = self.type_of(combination, &Loop::None, false, early);
                    self.joined(&mut types, &found, combination.span);
                }
                Loop::Matrix(Type::Record(Arc::new(types)))
            }
        }
    }

    /// A combination that is added has a value for each axis.
    fn joined(&mut self, axes: &mut BTreeMap<String, Type>, found: &Type, span: Span) {
        let Type::Record(values) = found else { return };
        for (axis, known) in axes {
            match values.get(axis) {
                Some(value) => *known = Type::common([known.clone(), value.clone()]),
                None => {
                    let message = format!("a combination of `include` has no `{axis}`");
                    self.report
                        .error(Code::PipelineMissing, span, message)
                        .hint("it is an instance of its own, with a value for each axis");
                }
            }
        }
    }

    fn item(&mut self, found: &Type, span: Span, what: &str) -> Type {
        match found {
            Type::Any => Type::Any,
            Type::List(item) => (**item).clone(),
            other => {
                let message = format!("{what} goes over a list, and this is {other}");
                self.report.error(Code::PipelineType, span, message);
                Type::Any
            }
        }
    }

    fn boolean(&mut self, found: &Type, expr: &Expr, what: &str) {
        if !found.fits(&Type::Bool) {
            let message = format!("{what} is a condition, and this is {found}");
            let draft = self.report.error(Code::PipelineType, expr.span, message);
            if let ExprKind::Text(_) = expr.kind {
                draft.hint("text around `${{ }}` makes a text of it; write all of it inside");
            }
        }
    }

    fn part_of_text(&mut self, found: &Type, span: Span, what: &str) {
        match found {
            _ if found.holds_secret() => {
                self.report
                    .error(Code::PipelineSecret, span, format!("{what} cannot be a secret"))
                    .hint("steps see secrets through `secrets`");
            }
            Type::List(_) | Type::Map(_) | Type::Record(_) => {
                let message = format!("{what} is a text, and this is {found}");
                self.report.error(Code::PipelineType, span, message);
            }
            _ => {}
        }
    }

    fn outputs(&mut self, step: &Step) {
        for output in &step.outputs {
            if step.uses.outputs().iter().any(|own| own.name == output.name.value) {
                let message = format!(
                    "`{}` has an output `{}` of its own",
                    step.uses.name(),
                    output.name.value
                );
                self.report
                    .error(Code::PipelineDuplicate, output.name.span, message)
                    .hint("give this one another name");
            }
        }
    }

    /// What the class of a step does not allow.
    fn class(&mut self, step: &Step) {
        let pure = match &step.uses {
            Uses::Step(definition) => definition.class == ActionClass::Pure,
            Uses::Target(_) => true,
        };
        let secret = step.secrets.first().map(|(name, _)| ("`secrets`", name.span));
        let host = step.egress.first().map(|expr| ("`egress`", expr.span));
        for (what, span) in secret.into_iter().chain(host).filter(|_| pure) {
            let message = format!("a step with {what} is not pure, and `{}` is", step.uses.name());
            self.report.error(Code::PipelineType, span, message).hint(
                "what is pure sees nothing but its inputs; take what it needs from a step that \
                 downloads, asks or acts",
            );
        }
    }

    fn arguments(&mut self, step: &Step, repeated: &Loop) {
        let definition = match &step.uses {
            Uses::Step(definition) => *definition,
            Uses::Target(label) => {
                for (name, _) in &step.with {
                    let message = format!("a target takes no `{}` from a pipeline", name.value);
                    self.report
                        .error(Code::PipelineField, name.span, message)
                        .hint(format!("`{label}` is what its build file says"));
                }
                return;
            }
        };
        for (name, value) in &step.with {
            let found = self.type_of(value, repeated, false, None);
            match definition.field(&name.value) {
                Some(field) => {
                    let what = place(definition, field);
                    self.conform(value, &found, field.kind, repeated, &what);
                }
                None => {
                    let message = format!("`{}` has no field `{}`", definition.name, name.value);
                    let draft = self.report.error(Code::PipelineField, name.span, message);
                    draft.suggest(&name.value, name.span, definition.fields.iter().map(|f| f.name));
                }
            }
        }
    }

    /// Checks a value against what a field takes.
    fn conform(
        &mut self,
        value: &Expr,
        found: &Type,
        kind: FieldKind,
        repeated: &Loop,
        what: &str,
    ) {
        match (&value.kind, kind, found) {
            (ExprKind::List(items), FieldKind::List(of), _) => {
                for item in items {
                    let found = self.quietly(item, repeated);
                    self.conform(item, &found, *of, repeated, &format!("an item of {what}"));
                }
            }
            (ExprKind::Map(entries), FieldKind::Map(of), _) => {
                for (key, item) in entries {
                    let found = self.quietly(item, repeated);
                    let what = format!("`{}` of {what}", key.value);
                    self.conform(item, &found, *of, repeated, &what);
                }
            }
            (ExprKind::List(items), FieldKind::Steps, _) => {
                for item in items.iter().filter(|item| item.steps().is_empty()) {
                    let message = format!("{what} takes names of steps");
                    self.report.error(Code::PipelineType, item.span, message);
                }
            }
            (ExprKind::Literal(literal), _, _) => self.literal(literal, value.span, kind, what),
            (_, FieldKind::Any, _) if found.holds_secret() => {
                self.part_of_text(found, value.span, what);
            }
            (_, FieldKind::Any, _) => {}
            (_, FieldKind::Duration, of) if of.is_text() || of.is_number() || *of == Type::Any => {}
            // Files are artifacts as well, all of them together.
            (_, FieldKind::Artifact, Type::List(_)) if !found.holds_secret() => {}
            (_, FieldKind::Secret, Type::Secret) => {}
            (_, FieldKind::Secret, _) => {
                let message = format!("{what} is a secret, and this is {found}");
                self.report
                    .error(Code::PipelineSecret, value.span, message)
                    .hint("write the name of a stored secret, or a param of type `secret`");
            }
            _ if found.fits(&kind.value_type()) => {}
            _ => {
                let message = format!("{what} is {}, and this is {found}", kind.describe());
                self.report.error(Code::PipelineType, value.span, message);
            }
        }
    }

    /// The type of a part whose errors were told with the whole.
    fn quietly(&mut self, part: &Expr, repeated: &Loop) -> Type {
        let (World { params, steps, roots }, names) = (self.world, self.names);
        let (outcome, no_steps) = (true, None);
        let env = Environment { params, steps, names, roots, repeated, outcome, no_steps };
        type_of(part, &env, &mut Report::default())
    }
}

fn place(definition: &StepDefinition, field: &FieldDefinition) -> String {
    format!("`{}` of `{}`", field.name, definition.name)
}

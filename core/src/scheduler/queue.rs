//! The queue: who waits, in which class, and who has the best right.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::requirements::Requirements;
use super::room::Usage;
use super::{ExecutionId, OperationId, WorkerId};

/// Executions with equal requirements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ClassId(pub(super) u64);

#[derive(Debug)]
pub(super) struct Class {
    pub(super) requirements: Arc<Requirements>,
    /// Executions that have not ended, also those that have a lease.
    pub(super) executions: usize,
    pub(super) queued: BTreeSet<ExecutionId>,
    /// Workers that could run them, were they idle.
    pub(super) eligible: BTreeSet<WorkerId>,
    /// Since when there is none of those.
    pub(super) unserved_since_ms: Option<u64>,
    /// The worker that takes nothing else.
    pub(super) reserved: Option<WorkerId>,
}

/// Who pays for an execution, and in which build.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Account {
    pub(super) tenant: Arc<str>,
    pub(super) invocation: Arc<str>,
}

/// The place of an operation in the line of its invocation and class; what is less goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) priority: i32,
    pub(super) age: u64,
    pub(super) operation: OperationId,
}

#[derive(Debug, Default)]
struct Tenant {
    used: Usage,
    served: u64,
    by_class: BTreeMap<ClassId, usize>,
    invocations: BTreeMap<Arc<str>, Invocation>,
}

#[derive(Debug, Default)]
struct Invocation {
    used: Usage,
    served: u64,
    lines: BTreeMap<ClassId, BTreeSet<Place>>,
}

/// Everything that waits.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) classes: BTreeMap<ClassId, Class>,
    by_requirements: BTreeMap<Arc<Requirements>, ClassId>,
    /// Classes with queued executions that some worker may have room for.
    pub(super) open: BTreeSet<ClassId>,
    tenants: BTreeMap<Arc<str>, Tenant>,
    queued: usize,
    next_class: u64,
    turns: u64,
}

impl Queue {
    /// Number of operations that wait.
    pub(super) fn len(&self) -> usize {
        self.queued
    }

    /// The class of these requirements, if there is one.
    pub(super) fn class_of(&self, requirements: &Requirements) -> Option<ClassId> {
        self.by_requirements.get(requirements).copied()
    }

    pub(super) fn add_class(&mut self, requirements: Requirements) -> (ClassId, &mut Class) {
        self.next_class += 1;
        let id = ClassId(self.next_class);
        let requirements = Arc::new(requirements);
        self.by_requirements.insert(Arc::clone(&requirements), id);
        let class = Class {
            requirements,
            executions: 0,
            queued: BTreeSet::new(),
            eligible: BTreeSet::new(),
            unserved_since_ms: None,
            reserved: None,
        };
        (id, self.classes.entry(id).or_insert(class))
    }

    pub(super) fn remove_class(&mut self, id: ClassId) {
        if let Some(class) = self.classes.remove(&id) {
            self.by_requirements.remove(&class.requirements);
            self.open.remove(&id);
        }
    }

    /// Has an operation wait.
    pub(super) fn insert(&mut self, account: &Account, class: ClassId, place: Place) {
        let tenant = self.tenants.entry(Arc::clone(&account.tenant)).or_default();
        let invocation = tenant.invocations.entry(Arc::clone(&account.invocation)).or_default();
        if invocation.lines.entry(class).or_default().insert(place) {
            *tenant.by_class.entry(class).or_default() += 1;
            self.queued += 1;
        }
    }

    /// Has an operation no longer wait.
    pub(super) fn remove(&mut self, account: &Account, class: ClassId, place: Place) {
        let Some(tenant) = self.tenants.get_mut(&account.tenant) else { return };
        let Some(invocation) = tenant.invocations.get_mut(&account.invocation) else { return };
        let Some(line) = invocation.lines.get_mut(&class) else { return };
        if !line.remove(&place) {
            return;
        }
        if line.is_empty() {
            invocation.lines.remove(&class);
        }
        self.queued -= 1;
        if let Some(count) = tenant.by_class.get_mut(&class) {
            *count -= 1;
            if *count == 0 {
                tenant.by_class.remove(&class);
            }
        }
        self.forget_idle(account);
    }

    /// Charges an execution that begins.
    pub(super) fn charge(&mut self, account: &Account, usage: Usage) {
        self.turns += 1;
        let tenant = self.tenants.entry(Arc::clone(&account.tenant)).or_default();
        tenant.used.add(usage);
        tenant.served = self.turns;
        let invocation = tenant.invocations.entry(Arc::clone(&account.invocation)).or_default();
        invocation.used.add(usage);
        invocation.served = self.turns;
    }

    /// Takes back what was charged.
    pub(super) fn discharge(&mut self, account: &Account, usage: Usage) {
        if let Some(tenant) = self.tenants.get_mut(&account.tenant) {
            tenant.used.remove(usage);
            if let Some(invocation) = tenant.invocations.get_mut(&account.invocation) {
                invocation.used.remove(usage);
            }
        }
        self.forget_idle(account);
    }

    /// The operation with the best right, among the classes that `wanted` names, and its class.
    pub(super) fn first(
        &self,
        all: Usage,
        wanted: impl Fn(ClassId) -> bool,
    ) -> Option<(ClassId, OperationId)> {
        let waits = |tenant: &&Tenant| tenant.by_class.keys().any(|class| wanted(*class));
        let right = |tenant: &&Tenant| (tenant.used.dominant_share(all), tenant.served);
        let tenant = self.tenants.values().filter(waits).min_by_key(right)?;
        let best = |invocation: &Invocation| {
            let lines = invocation.lines.iter().filter(|(class, _)| wanted(**class));
            let heads = lines.filter_map(|(class, line)| Some((*line.first()?, *class)));
            let (place, class) = heads.min()?;
            let share = invocation.used.dominant_share(all);
            Some(((place.priority, share, invocation.served, place.age), class, place.operation))
        };
        let (_, class, operation) =
            tenant.invocations.values().filter_map(best).min_by_key(|(right, ..)| *right)?;
        Some((class, operation))
    }

    /// What all tenants together use.
    pub(super) fn used(&self) -> Usage {
        let mut used = Usage::default();
        self.tenants.values().for_each(|tenant| used.add(tenant.used));
        used
    }

    fn forget_idle(&mut self, account: &Account) {
        let Some(tenant) = self.tenants.get_mut(&account.tenant) else { return };
        let idle =
            |invocation: &Invocation| invocation.lines.is_empty() && invocation.used.is_none();
        if tenant.invocations.get(&account.invocation).is_some_and(idle) {
            tenant.invocations.remove(&account.invocation);
        }
        if tenant.invocations.is_empty() && tenant.used.is_none() {
            self.tenants.remove(&account.tenant);
        }
    }
}

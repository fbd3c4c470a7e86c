//! Why an action is not run, in words that say how to mend it.

use std::collections::{BTreeMap, BTreeSet};

use super::requirements::{Lack, Offer, Requirements};

/// Why an operation is not queued, or not any longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// No worker has ever offered a property of this name.
    UnknownProperty {
        /// The name.
        name: String,
        /// The names that workers have offered.
        known: BTreeSet<String>,
    },
    /// No worker that is there could run it, however idle.
    Unserved {
        /// What lacks, and what is offered instead.
        reason: String,
    },
    /// Too many operations have not ended.
    TooManyOperations {
        /// How many may.
        limit: usize,
        /// Whether those of the tenant were counted alone.
        of_tenant: bool,
    },
    /// Too many different requirements wait.
    TooManyRequirements {
        /// How many may.
        limit: usize,
    },
}

impl Rejection {
    /// Why none of the workers that are there can run an execution.
    pub(super) fn unserved<'a>(
        requirements: &Requirements,
        offers: impl Iterator<Item = &'a Offer>,
    ) -> Self {
        let offers: Vec<&Offer> = offers.collect();
        Self::Unserved { reason: reason(requirements, &offers) }
    }
}

/// The first thing that every worker lacks, or that each lacks something else.
fn reason(requirements: &Requirements, offers: &[&Offer]) -> String {
    if offers.is_empty() {
        return "no worker is connected".to_owned();
    }
    for (name, value) in &requirements.properties {
        let one = Requirements {
            properties: [(name.clone(), value.clone())].into(),
            ..Requirements::default()
        };
        if offers.iter().all(|offer| offer.lacks(&one).is_some()) {
            return format!("no worker offers `{name}={value}`; {}", values(name, offers));
        }
    }
    let lacks: Vec<Option<Lack>> = offers.iter().map(|offer| offer.lacks(requirements)).collect();
    let all = |lack: Lack| lacks.iter().all(|found| *found == Some(lack.clone()));
    let demand = &requirements.demand;
    if all(Lack::Cpu) {
        let most = offers.iter().map(|offer| offer.cpu_milli).max().unwrap_or(0);
        let (wanted, most) = (demand.cpu_milli, most);
        return format!("it needs {wanted} thousandths of a core, and workers have up to {most}");
    }
    if all(Lack::Memory) {
        let most = offers.iter().map(|offer| offer.memory_bytes).max().unwrap_or(0);
        let wanted = demand.memory_bytes;
        return format!("it needs {wanted} bytes of memory, and workers have up to {most}");
    }
    if all(Lack::Gpus) {
        return gpus(requirements, offers);
    }
    "each worker lacks something that it needs: a property, cores, memory or GPUs".to_owned()
}

fn values(name: &str, offers: &[&Offer]) -> String {
    let offered: BTreeMap<&str, ()> = offers
        .iter()
        .filter_map(|offer| offer.properties.get(name))
        .flatten()
        .map(|value| (value.as_str(), ()))
        .collect();
    if offered.is_empty() {
        return format!("none offers any `{name}`");
    }
    let offered: Vec<String> = offered.keys().map(|value| format!("`{value}`")).collect();
    format!("of that name they offer {}", offered.join(", "))
}

fn gpus(requirements: &Requirements, offers: &[&Offer]) -> String {
    let demand = &requirements.demand;
    let model = demand.gpu_model.as_ref().map(|model| format!(" called `{model}`"));
    let offered: BTreeSet<String> = offers
        .iter()
        .flat_map(|offer| &offer.gpus)
        .map(|gpu| format!("`{}` of {} bytes", gpu.model, gpu.vram_bytes))
        .collect();
    let offered: Vec<String> = offered.into_iter().collect();
    let offered = if offered.is_empty() { "none".to_owned() } else { offered.join(", ") };
    format!(
        "it needs {} GPUs{} with {} bytes each on one worker; there are: {offered}",
        demand.gpus,
        model.unwrap_or_default(),
        demand.vram_bytes,
    )
}

impl std::fmt::Display for Rejection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::UnknownProperty { name, known } => {
                let known: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
                let known = known.join(", ");
                write!(f, "no worker knows the platform property `{name}`; they know {known}")
            }
            Self::Unserved { reason } => f.write_str(reason),
            Self::TooManyOperations { limit, of_tenant: true } => {
                write!(f, "the tenant waits for {limit} operations, the most that it may")
            }
            Self::TooManyOperations { limit, of_tenant: false } => {
                write!(f, "the server has {limit} operations, the most that it takes")
            }
            Self::TooManyRequirements { limit } => {
                write!(f, "actions with {limit} different requirements wait, the most there may be")
            }
        }
    }
}

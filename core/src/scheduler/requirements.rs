//! What actions need and what workers offer.

use std::collections::{BTreeMap, BTreeSet};

/// What an execution needs of a worker. Executions with equal requirements form a class.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Requirements {
    /// Names and values that the worker must offer, each of them.
    pub properties: BTreeSet<(String, String)>,
    /// What the execution takes of the worker while it runs.
    pub demand: Demand,
    /// The model that the execution asks: a worker that has it loaded is preferred.
    pub model: Option<String>,
}

/// What an execution takes of a worker while it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Demand {
    /// Thousandths of a core.
    pub cpu_milli: u64,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Number of GPUs.
    pub gpus: u32,
    /// Memory on each of those GPUs, in bytes; zero takes them whole.
    pub vram_bytes: u64,
    /// What those GPUs must be called.
    pub gpu_model: Option<String>,
}

/// A device of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// What it is called.
    pub model: String,
    /// Its memory, in bytes.
    pub vram_bytes: u64,
}

/// What a worker has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// Values by the names of properties.
    pub properties: BTreeMap<String, BTreeSet<String>>,
    /// Thousandths of a core.
    pub cpu_milli: u64,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Its devices.
    pub gpus: Vec<Gpu>,
}

/// What a worker lacks for an execution, however idle it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// A property of this name and value.
    Property {
        /// The name.
        name: String,
        /// The value.
        value: String,
    },
    /// Cores.
    Cpu,
    /// Memory.
    Memory,
    /// GPUs of that model and memory, in that number.
    Gpus,
}

impl Offer {
    /// What the worker lacks for executions of these requirements, or `None` where it can run them.
    pub fn lacks(&self, requirements: &Requirements) -> Option<Lack> {
        let offers = |name: &str, value: &str| {
            self.properties.get(name).is_some_and(|values| values.contains(value))
        };
        let missing = requirements.properties.iter().find(|(name, value)| !offers(name, value));
        if let Some((name, value)) = missing {
            return Some(Lack::Property { name: name.clone(), value: value.clone() });
        }
        let demand = &requirements.demand;
        if demand.cpu_milli > self.cpu_milli {
            return Some(Lack::Cpu);
        }
        if demand.memory_bytes > self.memory_bytes {
            return Some(Lack::Memory);
        }
        let fitting = self.gpus.iter().filter(|gpu| demand.could_use(gpu)).count();
        (fitting < demand.gpus as usize).then_some(Lack::Gpus)
    }
}

impl Demand {
    /// Whether a device is of the model that is needed, and large enough.
    pub(super) fn could_use(&self, gpu: &Gpu) -> bool {
        let named = self.gpu_model.as_ref().is_none_or(|model| *model == gpu.model);
        named && gpu.vram_bytes >= self.vram_bytes
    }
}

//! What the platform of an action asks of a worker.
//!
//! | property | value | what it does |
//! |---|---|---|
//! | `cpu` | cores, such as `2` or `0.5` | taken of the worker while the action runs; 1 by default |
//! | `memory` | a size, such as `4GiB` | as above; none by default |
//! | `gpu` | a number | as above |
//! | `vram` | a size | taken of each of these GPUs; without it they are taken whole |
//! | `gpu-model` | a name | these GPUs must be called so |
//! | `model` | a name | a worker that has this language model loaded is preferred |
//! | any other | any | a worker must offer it, name and value |

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use maestro_core::quantity;
use maestro_core::scheduler::Requirements;

/// What an action takes of a worker that says nothing of it, in thousandths of a core.
const CPU_MILLI_DEFAULT: u64 = 1_000;

/// A value that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlatformError {
    /// It is not of the kind that the property has.
    #[error("the platform property `{name}={value}` is not {expected}")]
    Value {
        /// The property.
        name: String,
        /// What was said.
        value: String,
        /// What is expected.
        expected: &'static str,
    },
    /// A property that can have one value has two.
    #[error("the platform property `{name}` stands there twice")]
    Twice {
        /// The property.
        name: String,
    },
}

/// Reads the properties of an action.
pub fn requirements(platform: &reapi::Platform) -> Result<Requirements, PlatformError> {
    let mut requirements = Requirements::default();
    requirements.demand.cpu_milli = CPU_MILLI_DEFAULT;
    let mut seen = std::collections::HashSet::new();
    for reapi::platform::Property { name, value } in &platform.properties {
        let demand = &mut requirements.demand;
        let wrong = |expected| {
            let (name, value) = (name.clone(), value.clone());
            PlatformError::Value { name, value, expected }
        };
        let size = || quantity::bytes(value).ok_or_else(|| wrong("a size, such as `4GiB`"));
        match name.as_str() {
            "cpu" => {
                let cores = cpu_milli(value);
                demand.cpu_milli = cores.ok_or_else(|| wrong("a number of cores"))?;
            }
            "memory" => demand.memory_bytes = size()?,
            "gpu" => demand.gpus = value.parse().map_err(|_| wrong("a number of GPUs"))?,
            "vram" => demand.vram_bytes = size()?,
            "gpu-model" => demand.gpu_model = Some(value.clone()),
            "model" => requirements.model = Some(value.clone()),
            _ => {
                requirements.properties.insert((name.clone(), value.clone()));
                continue;
            }
        }
        if !seen.insert(name.as_str()) {
            return Err(PlatformError::Twice { name: name.clone() });
        }
    }
    Ok(requirements)
}

/// Cores as `2`, `0.5` or `1.25`, in thousandths.
pub fn cpu_milli(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_number(whole) || !is_number(part) || part.len() > 3 {
        return None;
    }
    let part: u64 = format!("{part:0<3}").parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(1_000)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(properties: &[(&str, &str)]) -> reapi::Platform {
        let property = |(name, value): &(&str, &str)| reapi::platform::Property {
            name: (*name).to_owned(),
            value: (*value).to_owned(),
        };
        reapi::Platform { properties: properties.iter().map(property).collect() }
    }

    #[test]
    fn demands_are_told_from_properties() {
        let asked = [("os", "linux"), ("cpu", "1.5"), ("memory", "2GiB"), ("model", "small")];
        let read = requirements(&platform(&asked)).expect("well-formed");
        assert_eq!(read.demand.cpu_milli, 1_500);
        assert_eq!(read.demand.memory_bytes, 2 << 30);
        assert_eq!(read.model.as_deref(), Some("small"));
        let properties = [("os".to_owned(), "linux".to_owned())];
        assert_eq!(read.properties, properties.into());
        let nothing = requirements(&platform(&[])).expect("well-formed");
        assert_eq!(nothing.demand.cpu_milli, 1_000);
    }

    #[test]
    fn odd_values_are_refused() {
        let check = |properties: &[(&str, &str)], said: &str| {
            let error = requirements(&platform(properties)).expect_err("odd").to_string();
            assert!(error.contains(said), "{error}");
        };
        check(&[("cpu", "many")], "`cpu=many` is not a number of cores");
        check(&[("cpu", "-1")], "number of cores");
        check(&[("cpu", "1.0001")], "number of cores");
        check(&[("memory", "4 lots")], "a size");
        check(&[("gpu", "1.5")], "a number of GPUs");
        check(&[("cpu", "1"), ("cpu", "2")], "`cpu` stands there twice");
    }
}

//! What an endpoint tells about its models: weights, the deployment behind a name, prices.
//!
//! Two sources, both optional: `GET /models`, where servers of local models name the weights'
//! SHA-256 (`meta.sha256`), and litellm's `GET /model/info`. Nothing here does IO.

use maestro_executor::records::{ModelPin, Sha256};
use serde::Deserialize;

use crate::price::Price;

/// Both answers of an endpoint, as far as it gave them.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    weights: Vec<Listed>,
    deployments: Vec<Deployment>,
}

#[derive(Clone, Debug, Deserialize)]
struct Listed {
    id: String,
    #[serde(default)]
    meta: Option<Weights>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Weights {
    #[serde(default)]
    sha256: Option<String>,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    file: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Deployment {
    model_name: String,
    #[serde(default)]
    litellm_params: Params,
    #[serde(default)]
    model_info: Info,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Params {
    #[serde(default)]
    model: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Info {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    input_cost_per_token: Option<f64>,
    #[serde(default)]
    output_cost_per_token: Option<f64>,
}

#[derive(Deserialize)]
struct Data<T> {
    data: Vec<T>,
}

impl Catalog {
    /// Reads the two answers; one that is absent or has another shape tells nothing.
    pub fn read(models: Option<&[u8]>, info: Option<&[u8]>) -> Self {
        fn data<T: for<'de> Deserialize<'de>>(bytes: Option<&[u8]>) -> Vec<T> {
            let read = bytes.and_then(|b| serde_json::from_slice::<Data<T>>(b).ok());
            read.map(|d| d.data).unwrap_or_default()
        }
        Self { weights: data(models), deployments: data(info) }
    }

    /// The weights' hash of a model, where the endpoint tells.
    pub fn weights(&self, model: &str) -> Option<Sha256> {
        self.listed(model)?.sha256.as_deref()?.parse().ok()
    }

    /// The provider's name behind a model's name. A gateway with several deployments is asked for
    /// the one that answered; without that, all of them must agree.
    pub fn provider_name(&self, model: &str, deployment: Option<&str>) -> Option<String> {
        let mut names = self
            .of(model)
            .filter(|d| deployment.is_none_or(|id| d.model_info.id.as_deref() == Some(id)))
            .map(|d| d.litellm_params.model.as_deref().map(bare));
        let first = names.next()??;
        names.all(|name| name == Some(first)).then(|| first.to_owned())
    }

    /// The dearest price of the deployments of a model. A zero is how gateways write "unknown".
    pub fn price(&self, model: &str) -> Option<Price> {
        let mut dearest: Option<Price> = None;
        for Deployment { model_info: info, .. } in self.of(model) {
            let input = info.input_cost_per_token?;
            let output = info.output_cost_per_token?;
            let price = Price::from_usd_per_token(input, output)?;
            if price == Price::LOCAL {
                return None;
            }
            let best = dearest.get_or_insert(price);
            best.input_usd_micros_per_mtok =
                best.input_usd_micros_per_mtok.max(price.input_usd_micros_per_mtok);
            best.output_usd_micros_per_mtok =
                best.output_usd_micros_per_mtok.max(price.output_usd_micros_per_mtok);
        }
        dearest
    }

    /// The pin that describes a model as it is served now: its weights, else a dated name.
    pub fn observe(&self, model: &str) -> Option<ModelPin> {
        if let Some(sha256) = self.weights(model) {
            let weights = self.listed(model)?;
            return Some(ModelPin {
                sha256: Some(sha256),
                size: weights.size,
                file: weights.file.clone(),
                ..ModelPin::default()
            });
        }
        let name = self.provider_name(model, None).filter(|name| is_dated(name))?;
        Some(ModelPin { name: Some(name), ..ModelPin::default() })
    }

    fn listed(&self, model: &str) -> Option<&Weights> {
        self.weights.iter().find(|listed| listed.id == model)?.meta.as_ref()
    }

    fn of<'a>(&'a self, model: &'a str) -> impl Iterator<Item = &'a Deployment> {
        self.deployments.iter().filter(move |d| d.model_name == model)
    }
}

/// A model's name without the provider that litellm writes before it.
pub fn bare(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// Whether a name holds the date of a snapshot: `gpt-4o-2024-08-06`, `claude-sonnet-4-20250514`.
/// An alias such as `gpt-4o` may mean another model tomorrow, so it pins nothing.
pub fn is_dated(name: &str) -> bool {
    let digits =
        |text: &str, count| text.len() == count && text.bytes().all(|b| b.is_ascii_digit());
    let parts: Vec<&str> = name.split(['-', '@', ':', '.']).collect();
    parts.iter().any(|part| digits(part, 8) && part.starts_with("20"))
        || parts.windows(3).any(|w| match w {
            [y, m, d] => digits(y, 4) && y.starts_with("20") && digits(m, 2) && digits(d, 2),
            _ => false,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dated_names_pin_and_aliases_do_not() {
        let check = |name: &str, expect: bool| assert_eq!(is_dated(name), expect, "{name}");
        check("gpt-4o-2024-08-06", true);
        check("claude-sonnet-4-20250514", true);
        check("claude-3-5-sonnet@20240620", true);
        check("gpt-4o", false);
        check("gpt-4-1106-preview", false);
        check("llama-3.1-70b", false);
        check("", false);
    }

    #[test]
    fn the_catalog_is_read_with_care() {
        let hash = "ab".repeat(32);
        let models = format!(
            r#"{{"data":[{{"id":"m","meta":{{"sha256":"{hash}","size":3,"file":"m.gguf"}}}},
                {{"id":"n"}},{{"id":"bad","meta":{{"sha256":"xyz"}}}}]}}"#
        );
        let info = br#"{"data":[
            {"model_name":"g","litellm_params":{"model":"openai/gpt-4o-2024-08-06"},
             "model_info":{"id":"1","input_cost_per_token":2.5e-6,"output_cost_per_token":1e-5}},
            {"model_name":"g","litellm_params":{"model":"azure/gpt-4o-2024-08-06"},
             "model_info":{"id":"2","input_cost_per_token":3e-6,"output_cost_per_token":1e-5}},
            {"model_name":"mixed","litellm_params":{"model":"a/x-2024-08-06"},
             "model_info":{"id":"3"}},
            {"model_name":"mixed","litellm_params":{"model":"a/y-2024-08-06"},
             "model_info":{"id":"4"}},
            {"model_name":"zero","litellm_params":{"model":"a/z"},
             "model_info":{"input_cost_per_token":0,"output_cost_per_token":0}}]}"#;
        let catalog = Catalog::read(Some(models.as_bytes()), Some(info));
        assert_eq!(catalog.observe("m").and_then(|p| p.identity()), Some(format!("sha256:{hash}")));
        assert_eq!(catalog.observe("n"), None);
        assert_eq!(catalog.observe("bad"), None);
        let dated = Some("name:gpt-4o-2024-08-06".to_owned());
        assert_eq!(catalog.observe("g").and_then(|p| p.identity()), dated);
        assert_eq!(catalog.observe("mixed"), None);
        assert_eq!(catalog.provider_name("mixed", Some("4")).as_deref(), Some("y-2024-08-06"));
        let dearest =
            Price { input_usd_micros_per_mtok: 3_000_000, output_usd_micros_per_mtok: 10_000_000 };
        assert_eq!(catalog.price("g"), Some(dearest));
        assert_eq!(catalog.price("mixed"), None);
        assert_eq!(catalog.price("zero"), None);
        let nothing = Catalog::read(Some(b"<html>"), None);
        assert_eq!(nothing.observe("m"), None);
    }
}

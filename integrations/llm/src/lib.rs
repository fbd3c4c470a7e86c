//! Asks language models over the OpenAI chat API, for recorded actions.
//!
//! [`LlmClient`] implements [`maestro_executor::records::Live`]: given a question and the pin of
//! its model it brings back an answer with exact token counts and cost, or an error that is never
//! stored. It does not know the lock, does not judge whether an answer fits its schema (whoever
//! records it does, on every use), and reads no environment: endpoint and key are options.
//!
//! | module | what it owns |
//! |---|---|
//! | [`client`] | one call from check to answer: identity, price, retries, time limit |
//! | `endpoint` | which URLs are taken |
//! | `live` | the client for callers that may block |
//! | [`chat`] | the request body, and a stream of chunks folded into an answer |
//! | [`sse`] | server-sent events from bytes in any cut |
//! | [`catalog`] | what the endpoint tells about its models: weights, deployments, prices |
//! | [`price`] | money: micro-dollars, rounded up |
//! | [`error`] | what can go wrong, and whether another try may help |
//! | [`steps`] | the steps of pipelines that ask: `llm.plan`, `llm.generate`, `llm.review` |
//!
//! Neither a seed nor temperature 0 makes a server deterministic; the record is what is
//! reproducible, never the sampler.

pub mod catalog;
pub mod chat;
pub mod client;
mod endpoint;
pub mod error;
mod live;
pub mod price;
pub mod sse;
pub mod steps;

pub use client::{LlmClient, LlmOptions};
pub use error::LlmError;
pub use price::Price;

//! What can go wrong with a call, and whether another try may help.

use std::time::Duration;

use maestro_core::FailureKind;
use maestro_executor::records::LiveError;

/// Why a model gave no answer that may be recorded.
#[derive(Debug, thiserror::Error)]
pub enum LlmError {
    /// The options are wrong.
    #[error("the model endpoint `{endpoint}` cannot be used: {why}")]
    Endpoint {
        /// The endpoint, without user and password.
        endpoint: String,
        /// The reason.
        why: String,
    },
    /// The connection failed or broke.
    #[error("`{endpoint}` cannot be reached or broke off: {why}")]
    Transport {
        /// The endpoint.
        endpoint: String,
        /// The reason.
        why: String,
    },
    /// Another HTTP status than 200.
    #[error("`{endpoint}` answered {status}: {message}")]
    Status {
        /// The endpoint.
        endpoint: String,
        /// The HTTP status.
        status: u16,
        /// The beginning of the far side's message.
        message: String,
        /// How long the far side asks to wait.
        retry_after: Option<Duration>,
        /// Whether the far side says that no money is left.
        out_of_quota: bool,
    },
    /// The stream carried an error instead of the rest of the answer.
    #[error("`{endpoint}` failed in mid-answer: {message}")]
    MidStream {
        /// The endpoint.
        endpoint: String,
        /// The beginning of the far side's message.
        message: String,
    },
    /// The far side does not speak the protocol.
    #[error("`{endpoint}` does not answer as a chat API does: {why}")]
    Protocol {
        /// The endpoint.
        endpoint: String,
        /// What is wrong.
        why: String,
    },
    /// The answer is longer than any answer may be.
    #[error("the answer of `{model}` has more than {limit} bytes")]
    TooLong {
        /// The model.
        model: String,
        /// The limit.
        limit: usize,
    },
    /// The answer was cut at the limit of tokens.
    #[error("the answer of `{model}` was cut off after {tokens} tokens (`max_tokens` is {max})")]
    Truncated {
        /// The model.
        model: String,
        /// How long it became.
        tokens: u64,
        /// The limit of the request.
        max: u64,
    },
    /// A filter or the model itself refused.
    #[error("`{model}` refused to answer: {why}")]
    Filtered {
        /// The model.
        model: String,
        /// The finish reason, or the refusal's beginning.
        why: String,
    },
    /// Nothing came.
    #[error("`{model}` gave an empty answer")]
    Empty {
        /// The model.
        model: String,
    },
    /// Someone else answered than the pin names.
    #[error("`{model}` is pinned to `{pinned}`, but `{observed}` answers at `{endpoint}`")]
    Identity {
        /// The model's name.
        model: String,
        /// The pin.
        pinned: String,
        /// What the endpoint shows.
        observed: String,
        /// The endpoint.
        endpoint: String,
    },
    /// Nobody knows what a call costs.
    #[error("the price of `{model}` at `{endpoint}` is not known")]
    Price {
        /// The model.
        model: String,
        /// The endpoint.
        endpoint: String,
    },
    /// The call took too long, retries included.
    #[error("`{model}` gave no answer within {seconds} s")]
    Timeout {
        /// The model.
        model: String,
        /// The limit.
        seconds: u64,
    },
    /// The invocation is over.
    #[error("cancelled")]
    Cancelled,
    /// The runtime for network calls does not start.
    #[error("cannot start the network runtime")]
    Runtime(#[source] std::io::Error),
}

impl LlmError {
    /// Whether the same call may succeed a moment later.
    pub fn may_retry(&self) -> bool {
        match self {
            Self::Transport { .. } | Self::MidStream { .. } => true,
            Self::Status { status, out_of_quota, .. } => {
                !out_of_quota && matches!(status, 408 | 429 | 500 | 502 | 503 | 504 | 529)
            }
            _ => false,
        }
    }

    /// How long the far side asks to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whose fault it is.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Endpoint { .. } | Self::Price { .. } | Self::Identity { .. } => {
                FailureKind::Input
            }
            Self::Truncated { .. } | Self::Filtered { .. } | Self::TooLong { .. } => {
                FailureKind::Input
            }
            Self::Status { status: 400 | 404 | 422, .. } => FailureKind::Input,
            _ => FailureKind::Environment,
        }
    }

    /// What can be done.
    pub fn hints(&self) -> Vec<String> {
        let hint = match self {
            Self::Status { status: 401 | 403, .. } => {
                "set `MAESTRO_LLM_API_KEY` to a key that the endpoint knows"
            }
            Self::Endpoint { .. } | Self::Transport { .. } => {
                "set `MAESTRO_LLM_ENDPOINT` to the base URL of an OpenAI-compatible API"
            }
            Self::Truncated { .. } => "raise `max_tokens`, or ask for less",
            Self::Identity { .. } => {
                "point the endpoint at the pinned model, or change the pin in `[models]` of \
                 maestro.lock and record again"
            }
            Self::Price { .. } => {
                "pass `--price INPUT,OUTPUT` (micro-dollars for a million tokens), or set \
                 `price_input_usd_micros_per_mtok` and `price_output_usd_micros_per_mtok` in \
                 `[models]` of maestro.lock; 0 is a price"
            }
            _ => return Vec::new(),
        };
        vec![hint.to_owned()]
    }
}

impl From<LlmError> for LiveError {
    fn from(error: LlmError) -> Self {
        let mut message = error.to_string();
        if let Some(source) = std::error::Error::source(&error) {
            message.push_str(&format!(": {source}"));
        }
        Self {
            message,
            hints: error.hints(),
            kind: error.kind(),
            cancelled: matches!(error, LlmError::Cancelled),
            asked: false,
        }
    }
}

/// The beginning of a text from the far side, on one line and without control characters.
pub(crate) fn excerpt(text: &str) -> String {
    const CHARS: usize = 300;
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let short: String = text.trim().chars().take(CHARS).map(clean).collect();
    if short.is_empty() { "(no message)".to_owned() } else { short }
}

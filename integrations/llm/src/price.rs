//! Money: integer micro-dollars, always rounded up, and never free by accident.

/// What a model costs, in micro-dollars for a million tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Price {
    /// For tokens of the prompt.
    pub input_usd_micros_per_mtok: u64,
    /// For tokens of the answer.
    pub output_usd_micros_per_mtok: u64,
}

impl Price {
    /// The price of a model that runs on this machine.
    pub const LOCAL: Self = Self { input_usd_micros_per_mtok: 0, output_usd_micros_per_mtok: 0 };

    /// Reads `INPUT,OUTPUT`.
    pub fn parse(text: &str) -> Option<Self> {
        let (input, output) = text.split_once(',')?;
        Some(Self {
            input_usd_micros_per_mtok: input.trim().parse().ok()?,
            output_usd_micros_per_mtok: output.trim().parse().ok()?,
        })
    }

    /// The price from dollars for one token, as gateways write it. A price that is not a
    /// non-negative finite number is none.
    pub fn from_usd_per_token(input: f64, output: f64) -> Option<Self> {
        let per_mtok = |usd: f64| micros(usd).and_then(|_| micros(usd * 1e6));
        Some(Self {
            input_usd_micros_per_mtok: per_mtok(input)?,
            output_usd_micros_per_mtok: per_mtok(output)?,
        })
    }

    /// What a call costs, in micro-dollars.
    pub fn cost(self, prompt_tokens: u64, completion_tokens: u64) -> u64 {
        let part = |tokens: u64, price: u64| u128::from(tokens) * u128::from(price);
        let total = part(prompt_tokens, self.input_usd_micros_per_mtok)
            + part(completion_tokens, self.output_usd_micros_per_mtok);
        u64::try_from(total.div_ceil(1_000_000)).unwrap_or(u64::MAX)
    }
}

/// Micro-dollars of an amount in dollars, rounded up; `None` for what is no amount.
pub fn micros(usd: f64) -> Option<u64> {
    // Decimal fractions are not exact in binary: what is this close to a whole is that whole.
    const CLOSE: f64 = 1e-6;
    let micros = (usd * 1e6 - CLOSE).ceil().max(0.0);
    let sane = usd.is_finite() && usd >= 0.0 && micros < 1e15;
    sane.then_some(micros as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_rounded_up() {
        let check = |usd: f64, expect: Option<u64>| assert_eq!(micros(usd), expect, "{usd}");
        check(0.0, Some(0));
        check(1.35e-05, Some(14));
        check(0.000_003, Some(3));
        check(1.0, Some(1_000_000));
        check(-0.1, None);
        check(f64::NAN, None);
        check(f64::INFINITY, None);
        check(1e30, None);
    }

    #[test]
    fn calls_have_a_price() {
        let price = Price::parse("2500000, 10000000").expect("two numbers");
        assert_eq!(price.cost(1000, 500), 7500);
        assert_eq!(price.cost(1, 0), 3);
        assert_eq!(Price::LOCAL.cost(u64::MAX, u64::MAX), 0);
        assert_eq!(price.cost(u64::MAX, u64::MAX), u64::MAX);
        assert_eq!(Price::from_usd_per_token(2.5e-6, 1e-5), Some(price));
        assert_eq!(Price::parse("1"), None);
        assert_eq!(Price::parse("-1,2"), None);
    }
}

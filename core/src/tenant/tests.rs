//! What is granted, what is denied and in which words, and what opens the breaker.

use super::*;

/// 2026-11-23 12:00 UTC.
const NOON: u64 = 1_795_435_200_000;

fn tenant() -> TenantName {
    TenantName::new("shop").expect("a name")
}

fn money(usd_micros: u64) -> Amount {
    Amount { usd_micros, tokens: 0 }
}

fn caps() -> TenantCaps {
    let day = Cap {
        usd_micros: Some(5_000_000),
        soft_usd_micros: Some(4_000_000),
        tokens: Some(900),
        ..Cap::default()
    };
    let month = Cap { usd_micros: Some(9_000_000), ..Cap::default() };
    TenantCaps { day, month, rate: Some(Rate { usd_micros: 1_000_000, minutes: 10 }) }
}

fn used(settled: u64, reserved: u64) -> Used {
    Used { settled: money(settled), reserved: money(reserved) }
}

#[test]
fn what_fits_is_granted_and_what_does_not_is_denied_in_words() {
    let check = |day: Used, month: Used, asked: Amount, expect: Result<&[&str], &str>| {
        let accounts = Accounts { day, month, breaker: None };
        let admitted = admit(&tenant(), &caps(), &accounts, asked, NOON);
        let told = |notices: Vec<Notice>| {
            notices.into_iter().map(|notice| notice.message).collect::<Vec<_>>()
        };
        let admitted = admitted.map(told).map_err(|denial| denial.message(&tenant()));
        let expect = expect.map(|told| told.iter().map(|text| (*text).to_owned()).collect());
        assert_eq!(admitted, expect.map_err(str::to_owned), "{day:?} {asked:?}");
    };
    let none = Used::default();
    check(none, none, Amount::ZERO, Ok(&[]));
    check(none, none, money(4_000_000), Ok(&[]));
    check(
        used(3_500_000, 250_000),
        none,
        money(1_250_000),
        Ok(&[
            "the soft budget of tenant `shop` for 2026-11-23 is passed: 3.50 of 4.00 USD spent, \
              0.25 reserved, 1.25 asked",
        ]),
    );
    check(
        used(3_500_000, 250_000),
        none,
        money(1_250_001),
        Err("the budget of tenant `shop` for 2026-11-23 leaves no room: 3.50 of 5.00 USD spent, \
             0.25 reserved, 1.250001 asked; 0 of 900 tokens spent, 0 reserved, 0 asked; it opens \
             again at 2026-11-24 00:00 UTC"),
    );
    check(
        none,
        used(8_999_999, 0),
        money(2),
        Err("the budget of tenant `shop` for 2026-11 leaves no room: 8.999999 of 9.00 USD spent, \
             0.00 reserved, 0.000002 asked; it opens again at 2026-12-01 00:00 UTC"),
    );
    check(
        none,
        none,
        Amount { usd_micros: 0, tokens: 901 },
        Err("the budget of tenant `shop` for 2026-11-23 leaves no room: 0.00 of 5.00 USD spent, \
             0.00 reserved, 0.00 asked; 0 of 900 tokens spent, 0 reserved, 901 asked; the whole \
             of it is too little"),
    );
    check(
        used(u64::MAX, 1),
        none,
        money(1),
        Err(&Denial::Cap {
            period: Period::Day,
            span: Period::Day.span(NOON),
            cap: caps().day,
            used: used(u64::MAX, 1),
            asked: money(1),
        }
        .message(&tenant())),
    );
}

#[test]
fn the_breaker_opens_by_an_overrun_or_a_spike() {
    let check = |reserved: u64, spent: u64, recent: u64, expect: Option<&str>| {
        let breaker = trip(&caps(), (money(reserved), money(spent)), recent, NOON);
        let message = breaker.map(|breaker| breaker.message(&tenant()));
        assert_eq!(message.as_deref(), expect);
    };
    check(5, 5, 1_000_000, None);
    check(
        5,
        6,
        6,
        Some(
            "the breaker of tenant `shop` is open: a call had reserved 0.000005 USD and 0 tokens, \
             and took 0.000006 USD and 0; it stays open until somebody closes it",
        ),
    );
    check(
        5,
        5,
        1_000_001,
        Some(
            "the breaker of tenant `shop` is open: 1.000001 USD were spent within 10 min, and 1.00 \
             may be; it closes at 2026-11-23 12:10 UTC",
        ),
    );
    let unbounded = TenantCaps::default();
    assert_eq!(trip(&unbounded, (money(5), money(5)), u64::MAX, NOON), None);
}

#[test]
fn an_open_breaker_grants_nothing_until_its_time() {
    let breaker = trip(&caps(), (money(5), money(5)), 2_000_000, NOON);
    let accounts = Accounts { breaker, ..Accounts::default() };
    let ask = |asked, at_ms| admit(&tenant(), &caps(), &accounts, asked, at_ms);
    let end = NOON + 600_000;
    assert_eq!(ask(money(1), end - 1), Err(Denial::Open(breaker.expect("open"))));
    assert_eq!(ask(Amount::ZERO, NOON), Ok(Vec::new()), "what costs nothing goes on");
    assert_eq!(ask(money(1), end), Ok(Vec::new()));
}

#[test]
fn a_name_can_be_shown() {
    let check = |text: &str, expect: bool| {
        assert_eq!(TenantName::new(text).is_ok(), expect, "{text:?}");
    };
    check("Intelgraph: the shop", true);
    check("", false);
    check("a\nb", false);
    check("a`b", false);
    check(&"x".repeat(TENANT_NAME_BYTES_MAX), true);
    check(&"x".repeat(TENANT_NAME_BYTES_MAX + 1), false);
}

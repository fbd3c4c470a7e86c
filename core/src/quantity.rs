//! Amounts with units: times, money, sizes. Exact: nothing passes through a fraction.

/// A time in milliseconds: `90s`, `1h30m`, `500ms`, `7d`, or a number of seconds.
pub fn duration_ms(text: &str) -> Option<u64> {
    if let Ok(seconds) = text.parse::<u64>() {
        return seconds.checked_mul(1000);
    }
    let mut rest = text;
    let mut total = 0u64;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at_checked(digits)?;
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at_checked(letters)?;
        let unit = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" | "min" => 60 * 1000,
            "h" => 60 * 60 * 1000,
            "d" => 24 * 60 * 60 * 1000,
            _ => return None,
        };
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(unit)?)?;
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

/// Money in millionths of a dollar: `5`, `0.25`, `5usd`, `$5`.
pub fn usd_micros(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let number = lower.strip_suffix("usd").or(lower.strip_prefix('$')).unwrap_or(&lower).trim();
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(part) || part.len() > 6 {
        return None;
    }
    if number.ends_with('.') {
        return None;
    }
    let part: u64 = format!("{part:0<6}").parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(1_000_000)?.checked_add(part)
}

/// A size in bytes: `512MiB`, `2GB`, or a number of bytes.
pub fn bytes(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let unit: u64 = match unit.trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_exactly() {
        let times = [("90", Some(90_000)), ("1h30m", Some(5_400_000)), ("500ms", Some(500))];
        for (text, expect) in times.into_iter().chain([("", None), ("5 s", None), ("m", None)]) {
            assert_eq!(duration_ms(text), expect, "{text}");
        }
        let money =
            [("5usd", Some(5_000_000)), ("0.25", Some(250_000)), ("$1.000001", Some(1_000_001))];
        for (text, expect) in
            money.into_iter().chain([("1.", None), (".5", None), ("1.0000001", None), ("-1", None)])
        {
            assert_eq!(usd_micros(text), expect, "{text}");
        }
        let sizes = [("5", Some(5)), ("2GiB", Some(2 << 30)), ("3 MB", Some(3_000_000))];
        for (text, expect) in sizes.into_iter().chain([("x", None), ("1.5GiB", None)]) {
            assert_eq!(bytes(text), expect, "{text}");
        }
        assert_eq!(duration_ms("99999999999999999999d"), None);
        assert_eq!(duration_ms("18446744073709551615d"), None);
    }
}

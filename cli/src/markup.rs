//! Text within markup: one way to write it for XML and for HTML.

/// Text for XML 1.0 and HTML, the first of which has no place for most control characters.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_no_markup() {
        let check = |text: &str, expect: &str| assert_eq!(escape(text), expect);
        check("a < b && \"c\" > d", "a &lt; b &amp;&amp; &quot;c&quot; &gt; d");
        check("one\n\ttwo", "one\n\ttwo");
        check("\x1b[1m\u{ffff}", "\u{fffd}[1m\u{fffd}");
        check("größer", "größer");
    }
}

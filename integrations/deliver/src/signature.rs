//! Signatures of webhooks: HMAC-SHA256 (RFC 2104) over the raw body, in the form of GitHub's
//! `X-Hub-Signature-256`.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::secrets::Secret;

/// `sha256=` and the code in hexadecimal digits.
pub(crate) fn signature(secret: &Secret, body: &[u8]) -> String {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.reveal()).expect("keys of HMAC have any length");
    mac.update(body);
    let code = mac.finalize().into_bytes();
    let digits: String = code.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256={digits}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_the_published_examples() {
        let check = |key: &[u8], body: &[u8], expected: &str| {
            assert_eq!(signature(&Secret::new(key), body), format!("sha256={expected}"));
        };
        // GitHub's documentation of webhooks.
        check(
            b"It's a Secret to Everybody",
            b"Hello, World!",
            "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
        );
        // RFC 4231, test cases 2 and 6.
        check(
            b"Jefe",
            b"what do ya want for nothing?",
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        );
        check(
            &[0xaa; 131],
            b"Test Using Larger Than Block-Size Key - Hash Key First",
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        );
    }
}

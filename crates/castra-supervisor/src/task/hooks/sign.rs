//! Signatures of webhooks, as <https://www.standardwebhooks.com> has them. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// In front of a secret that is Base64.
const PREFIX: &str = "whsec_";

/// The key of a secret. None: it is empty, or not the Base64 that it says.
pub(super) fn key(secret: &str) -> Option<Vec<u8>> {
    let key = match secret.strip_prefix(PREFIX) {
        Some(encoded) => STANDARD.decode(encoded).ok()?,
        None => secret.as_bytes().to_vec(),
    };
    (!key.is_empty()).then_some(key)
}

/// The value of `webhook-signature`. `at`: seconds since 1970, as in `webhook-timestamp`.
pub(super) fn signature(secret: &str, id: &str, at: i64, body: &[u8]) -> Option<String> {
    // Any length is a key.
    let mut mac = Hmac::<Sha256>::new_from_slice(&key(secret)?).ok()?;
    mac.update(format!("{id}.{at}.").as_bytes());
    mac.update(body);
    Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's own libraries.
    #[test]
    fn it_is_signed_as_others_do() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let signed =
            signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signed.as_deref(), Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="));
    }

    #[test]
    fn a_secret_is_base64_or_text() {
        for (secret, expected) in [
            ("whsec_c2VjcmV0", Some(&b"secret"[..])),
            ("secret", Some(b"secret")),
            ("whsec_?", None),
            ("whsec_", None),
            ("", None),
        ] {
            assert_eq!(key(secret).as_deref(), expected, "{secret}");
        }
    }
}

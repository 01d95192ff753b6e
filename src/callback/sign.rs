//! Signatures as Standard Webhooks 1.0.0 has them: `{id}.{timestamp}.{body}` under every key of the tenant.
//!
//! Several keys serve rotation: a receiver takes whichever signature it can verify, so a new key is added first, the
//! receivers change over, and then the old one is removed.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{KEYPAIR_LENGTH, SECRET_KEY_LENGTH, Signer, SigningKey};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::fmt;

/// Length of a symmetric secret, bytes (Standard Webhooks, "Signature scheme").
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// Signatures on one message: two for a rotation of each kind. A header has to stay short.
pub const MOST_KEYS: usize = 8;

/// A secret of a tenant. It is never shown: neither in `Debug` output nor in errors.
#[derive(Clone)]
pub struct Key(Secret);

#[derive(Clone)]
enum Secret {
    Symmetric(Vec<u8>),
    Asymmetric(Box<SigningKey>),
}

/// Why a text is no key. Says nothing of the text itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("a signing key begins with 'whsec_' (HMAC-SHA256) or 'whsk_' (ed25519)")]
    Prefix,
    #[error("what follows the prefix of a signing key is base64")]
    Base64,
    #[error("a 'whsec_' key holds 24 to 64 bytes; this one holds {0}")]
    SymmetricLength(usize),
    #[error("a 'whsk_' key holds 32 bytes, or 64 with its public half; this one holds {0}")]
    AsymmetricLength(usize),
    #[error("the public half of this 'whsk_' key is that of another key")]
    Halves,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Secret::Symmetric(_) => "Key(whsec_...)",
            Secret::Asymmetric(_) => "Key(whsk_...)",
        })
    }
}

impl Key {
    /// Reads `whsec_<base64>` or `whsk_<base64>`; white space around it is of the file it came in.
    ///
    /// # Errors
    /// Says what is wrong, and not what was read.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        let decode = |base64: &str| STANDARD.decode(base64).map_err(|_| KeyError::Base64);
        if let Some(base64) = text.strip_prefix("whsec_") {
            let secret = decode(base64)?;
            if !SECRET_BYTES.contains(&secret.len()) {
                return Err(KeyError::SymmetricLength(secret.len()));
            }
            return Ok(Self(Secret::Symmetric(secret)));
        }
        let secret = decode(text.strip_prefix("whsk_").ok_or(KeyError::Prefix)?)?;
        let key = match secret.len() {
            SECRET_KEY_LENGTH => {
                let seed: [u8; SECRET_KEY_LENGTH] = secret.try_into().map_err(|_| KeyError::Base64)?;
                SigningKey::from_bytes(&seed)
            }
            KEYPAIR_LENGTH => {
                let pair: [u8; KEYPAIR_LENGTH] = secret.try_into().map_err(|_| KeyError::Base64)?;
                SigningKey::from_keypair_bytes(&pair).map_err(|_| KeyError::Halves)?
            }
            other => return Err(KeyError::AsymmetricLength(other)),
        };
        Ok(Self(Secret::Asymmetric(Box::new(key))))
    }

    /// The half of an ed25519 key that receivers verify with, `whpk_<base64>`; a symmetric key has none.
    pub fn public(&self) -> Option<String> {
        match &self.0 {
            Secret::Symmetric(_) => None,
            Secret::Asymmetric(key) => Some(format!("whpk_{}", STANDARD.encode(key.verifying_key().as_bytes()))),
        }
    }

    fn sign(&self, content: &[u8]) -> String {
        match &self.0 {
            Secret::Symmetric(secret) => {
                let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of every length");
                mac.update(content);
                format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
            }
            Secret::Asymmetric(key) => format!("v1a,{}", STANDARD.encode(key.sign(content).to_bytes())),
        }
    }
}

/// The value of `webhook-signature`: one signature for each key, space separated.
///
/// `id` must hold no full stop ([`message_id`]), or what is signed could be read in two ways.
pub fn sign(keys: &[Key], id: &str, timestamp_s: u64, body: &[u8]) -> String {
    debug_assert!(!id.contains('.'), "the id ends at the first full stop");
    let mut content = format!("{id}.{timestamp_s}.").into_bytes();
    content.extend_from_slice(body);
    let signatures: Vec<String> = keys.iter().map(|key| key.sign(&content)).collect();
    signatures.join(" ")
}

/// The value of `webhook-id` for the event of this id, the same for every attempt.
///
/// Event ids begin with a name that the customer chose and may hold full stops, which the specification forbids in what
/// is signed; all but letters, digits and `-_/` is percent-encoded (RFC 3986 2.1), so no two events share an id.
pub fn message_id(event: &str) -> String {
    event.bytes().fold(String::with_capacity(event.len()), |mut id, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'/' => id.push(char::from(byte)),
            _ => id.push_str(&format!("%{byte:02X}")),
        }
        id
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signature, Verifier, VerifyingKey};
    use proptest::prelude::*;

    /// Those of the published libraries.
    const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    const PAIR: &str = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";
    const SEED: &str = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbc=";
    const PUBLIC: &str = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=";

    fn key(text: &str) -> Key {
        Key::parse(text).unwrap()
    }

    #[test]
    fn the_published_vectors_come_out() {
        let body = br#"{"email":"test@example.com","username":"test_user"}"#;
        let signed = sign(&[key(SECRET)], "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", 1_649_367_553, body);
        assert_eq!(signed, "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=");
        let asymmetric = "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==";
        for text in [PAIR, SEED] {
            let key = key(text);
            assert_eq!(key.public().unwrap(), PUBLIC);
            let signed = sign(&[key], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
            assert_eq!(signed, asymmetric);
        }
    }

    #[test]
    fn while_keys_are_rotated_a_receiver_with_either_key_is_content() {
        let (old, new) = (SECRET, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwAAAAAAAA");
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        let (id, body) = (message_id("talk.1/job.completed"), br#"{"type":"job.completed"}"#);
        let signed = sign(&[key(new), key(old), key(PAIR)], &id, now as u64, body);
        let mut headers = axum::http::HeaderMap::new();
        let values = [("webhook-id", id.clone()), ("webhook-timestamp", now.to_string()), ("webhook-signature", signed)];
        for (name, value) in values {
            headers.insert(name, value.parse().unwrap());
        }
        for secret in [old, new] {
            standardwebhooks::Webhook::new(secret).unwrap().verify(body, &headers).unwrap();
        }
        let other = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        assert!(standardwebhooks::Webhook::new(other).unwrap().verify(body, &headers).is_err());
    }

    #[test]
    fn a_wrong_key_is_refused_without_being_shown() {
        let of = |text: &str| Key::parse(text).unwrap_err();
        assert_eq!(of("hunter2"), KeyError::Prefix);
        assert_eq!(of("whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="), KeyError::Prefix);
        assert_eq!(of("whsec_hunter2!"), KeyError::Base64);
        assert_eq!(of("whsec_aHVudGVyMg=="), KeyError::SymmetricLength(7));
        assert_eq!(of("whsk_aHVudGVyMg=="), KeyError::AsymmetricLength(7));
        let halves = format!("whsk_{}", STANDARD.encode([7; 64]));
        assert_eq!(of(&halves), KeyError::Halves);
        for text in ["whsec_hunter2!", "whsec_aHVudGVyMg==", &halves] {
            let said = of(text).to_string();
            assert!(!said.contains(&text[6..]), "{said}");
        }
        for text in [SECRET, PAIR] {
            let shown = format!("{:?} {:#?}", key(text), [key(text)]);
            assert!(!shown.contains(&text[7..]) && !shown.contains("0x"), "{shown}");
        }
    }

    #[test]
    fn message_ids_are_the_events_without_full_stops() {
        assert_eq!(message_id("talk-1/part.failed/encode/00003/1"), "talk-1/part%2Efailed/encode/00003/1");
        assert_ne!(message_id("a.b/job.completed"), message_id("a%2Eb/job.completed"));
    }

    proptest! {
        #[test]
        fn the_published_verifier_takes_whatever_is_signed(
            secret in proptest::collection::vec(any::<u8>(), 24..=64),
            event in "[A-Za-z0-9._/-]{1,80}",
            body in "\\PC{0,200}",
        ) {
            let text = format!("whsec_{}", STANDARD.encode(secret));
            let (id, at) = (message_id(&event), 1_700_000_000);
            let theirs = standardwebhooks::Webhook::new(&text).unwrap().sign(&id, at, body.as_bytes()).unwrap();
            prop_assert_eq!(sign(&[key(&text)], &id, at as u64, body.as_bytes()), theirs);
        }

        #[test]
        fn the_public_half_verifies_and_only_what_was_signed(seed: [u8; 32], body in "\\PC{0,200}") {
            let key = key(&format!("whsk_{}", STANDARD.encode(seed)));
            let signed = sign(std::slice::from_ref(&key), "m", 7, body.as_bytes());
            let signature = STANDARD.decode(signed.strip_prefix("v1a,").unwrap()).unwrap();
            let public = STANDARD.decode(key.public().unwrap().strip_prefix("whpk_").unwrap()).unwrap();
            let public = VerifyingKey::from_bytes(&public.try_into().unwrap()).unwrap();
            let signature = Signature::from_slice(&signature).unwrap();
            let (signed, other) = (format!("m.7.{body}"), format!("m.8.{body}"));
            prop_assert!(public.verify(signed.as_bytes(), &signature).is_ok());
            prop_assert!(public.verify(other.as_bytes(), &signature).is_err());
        }

        #[test]
        fn no_two_events_share_a_message_id(a in "[a-z.%2E/]{1,12}", b in "[a-z.%2E/]{1,12}") {
            prop_assert_eq!(a == b, message_id(&a) == message_id(&b));
        }
    }
}

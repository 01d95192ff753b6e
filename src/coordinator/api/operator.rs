//! Whoever runs the fleet, as far as a request can show it.

use crate::tenant::Secret;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The credentials of whoever runs the fleet.
pub struct Operator {
    access_key_id: String,
    digest: [u8; 32],
}

impl Operator {
    pub fn new(access_key_id: String, secret: &Secret) -> Self {
        Self { access_key_id, digest: Sha256::digest(secret.expose()).into() }
    }

    pub(super) fn is(&self, id: &str, secret: &[u8]) -> bool {
        let digest: [u8; 32] = Sha256::digest(secret).into();
        let is_right: bool = self.digest.ct_eq(&digest).into();
        is_right && self.access_key_id == id
    }
}

/// Shows no more than the id.
impl std::fmt::Debug for Operator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Operator").field("access_key_id", &self.access_key_id).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_is_known_by_both_halves_and_shows_neither_secret_nor_hash() {
        let secret = Secret::new(b"0123456789abcdef").unwrap();
        let operator = Operator::new("ops".into(), &secret);
        assert!(operator.is("ops", b"0123456789abcdef"));
        assert!(!operator.is("ops", b"0123456789abcdee") && !operator.is("op", b"0123456789abcdef"));
        assert_eq!(format!("{operator:?}"), "Operator { access_key_id: \"ops\" }");
    }
}

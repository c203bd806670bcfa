//! What a human approved (TBAC r41, section 3.2): the digest that ties a trust level 3 token to one approval.

use sha2::{Digest, Sha256};

use super::canonical::{Writer, constraints_to_tlv, tag};
use super::{Scope, ScopeError};

impl Scope {
    /// SHA-256 over the nine fields that an approval covers, written as in the scope itself: their own tags,
    /// ascending, absent ones left out. The text names the fields and not their encoding; this is what its
    /// reference implementation does.
    ///
    /// A scope of trust level 3 is sound only if its [`approval_digest`](Scope::approval_digest) equals this.
    ///
    /// # Errors
    ///
    /// [`ScopeError::TooLong`] if a field is too long to be written.
    pub fn compute_approval_digest(&self) -> Result<[u8; 32], ScopeError> {
        let mut tuple = Writer::default();
        tuple.text(tag::AGENT_INSTANCE_ID, &self.agent_instance_id)?;
        tuple.text(tag::TOOL, &self.tool)?;
        for action in &self.action {
            tuple.text(tag::ACTION, action)?;
        }
        tuple.text(tag::RESOURCE, &self.resource)?;
        if let Some(constraints) = &self.constraints {
            tuple.bytes(tag::CONSTRAINTS, &constraints_to_tlv(constraints)?)?;
        }
        tuple.text(tag::ORG_ID, &self.org_id)?;
        tuple.option(tag::PURPOSE, self.purpose.as_ref().map(String::as_bytes))?;
        tuple.option(tag::TXN_ID, self.txn_id.as_ref().map(<[u8; 16]>::as_slice))?;
        tuple.option(tag::INTENT_HASH, self.intent_hash.as_ref().map(String::as_bytes))?;
        Ok(Sha256::digest(tuple.into_bytes()).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope() -> Scope {
        serde_json::from_value(serde_json::json!({
            "iss": "as", "sub": "agent-key:1", "agent_instance_id": "agent-1", "tool": "t", "action": ["r", "w"],
            "resource": "a/*", "constraints": {"max_rows": 1}, "delegation_depth": 0, "aud": "https://rs",
            "org_id": "org", "trust_level": 0, "human_confirmed_at": 0, "purpose": "p",
            "txn_id": "000102030405060708090a0b0c0d0e0f"
        }))
        .unwrap()
    }

    #[test]
    fn the_digest_covers_its_fields_in_tag_order() {
        let tlv = [
            &b"\x03\x07agent-1\x04\x01t\x05\x01r\x05\x01w\x06\x03a/*\x07\x0a\x01\x08\0\0\0\0\0\0\0\x01"[..],
            b"\x0c\x03org\x10\x01p\x11\x10\0\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f",
        ]
        .concat();
        assert_eq!(scope().compute_approval_digest(), Ok(Sha256::digest(tlv).into()));
    }

    #[test]
    fn every_approved_field_changes_the_digest_and_no_other_does() {
        let digest = |change: fn(&mut Scope)| {
            let mut scope = scope();
            change(&mut scope);
            scope.compute_approval_digest().unwrap()
        };
        let untouched = digest(|_| {});
        let approved: [fn(&mut Scope); 9] = [
            |s| s.agent_instance_id.push('x'),
            |s| s.tool.push('x'),
            |s| s.action.reverse(),
            |s| s.resource.push('x'),
            |s| s.constraints = None,
            |s| s.org_id.push('x'),
            |s| s.purpose = None,
            |s| s.txn_id = None,
            |s| s.intent_hash = Some("0".repeat(64)),
        ];
        for (number, change) in approved.into_iter().enumerate() {
            assert_ne!(digest(change), untouched, "field {number}");
        }
        assert_eq!(digest(|s| s.trust_level = 3), untouched);
        assert_eq!(digest(|s| s.human_confirmed_at = 1), untouched);
    }
}

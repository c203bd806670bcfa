//! The table of events and what they bring about. What is not in it is taken, written into the audit log, and does nothing.

use serde_json::{Map, Value};

use super::settings::Standing;
use crate::directory::OwnerEnd;

/// Where CAEP's, RISC's and the framework's events are named; the last is what the framework was called before.
pub(in crate::ssf) const CAEP: &str = "https://schemas.openid.net/secevent/caep/event-type/";
pub(in crate::ssf) const RISC: &str = "https://schemas.openid.net/secevent/risc/event-type/";
pub(in crate::ssf) const SSF: [&str; 2] = [
    "https://schemas.openid.net/secevent/ssf/event-type/",
    "https://schemas.openid.net/secevent/sse/event-type/",
];

/// What a security event token's header says that it is.
pub(in crate::ssf) const SET_TYPE: &str = "secevent+jwt";

/// What one event of a token brings about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Effect {
    /// This is done.
    Deed(OwnerEnd),
    /// It is written down, and nothing else.
    Noted,
    /// It is about the stream itself.
    OfStream,
}

/// An event's short name, as it is written into logs; `None` for one that is not of these families.
pub(super) fn short(kind: &str) -> Option<&str> {
    let families = [CAEP, RISC].into_iter().chain(SSF);
    families.into_iter().find_map(|family| kind.strip_prefix(family))
}

/// What an event brings about.
pub(super) fn effect(kind: &str, said: &Map<String, Value>, suspend_on: &[Standing]) -> Effect {
    if SSF.iter().any(|family| kind.starts_with(family)) {
        return Effect::OfStream;
    }
    let says = |member: &str, value: &str| said.get(member).and_then(Value::as_str) == Some(value);
    let suspends = |standing: Standing| match suspend_on.contains(&standing) {
        true => Effect::Deed(OwnerEnd::Suspend),
        false => Effect::Noted,
    };
    match (kind.strip_prefix(CAEP), kind.strip_prefix(RISC)) {
        (Some("session-revoked"), _) | (_, Some("sessions-revoked")) => Effect::Deed(OwnerEnd::Sessions),
        // What they may follows from their claims: what is opened next is decided anew.
        (Some("token-claims-change"), _) => Effect::Deed(OwnerEnd::Sessions),
        (Some("credential-change"), _) if says("change_type", "revoke") || says("change_type", "delete") => {
            Effect::Deed(OwnerEnd::Suspend)
        }
        (_, Some("credential-compromise" | "account-disabled")) => Effect::Deed(OwnerEnd::Suspend),
        (_, Some("account-purged")) => Effect::Deed(OwnerEnd::Revoke),
        (Some("assurance-level-change"), _) if !says("change_direction", "increase") => {
            suspends(Standing::Assurance)
        }
        (Some("device-compliance-change"), _) if !says("current_status", "compliant") => {
            suspends(Standing::Compliance)
        }
        (Some("risk-level-change"), _) if says("current_level", "HIGH") => suspends(Standing::Risk),
        _ => Effect::Noted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[expect(clippy::needless_pass_by_value, reason = "json! makes a value where it is used")]
    fn of(kind: &str, said: Value, suspend_on: &[Standing]) -> Effect {
        effect(kind, said.as_object().unwrap(), suspend_on)
    }

    #[test]
    fn each_event_does_what_the_table_says() {
        let caep = |name: &str, said: Value| of(&format!("{CAEP}{name}"), said, &[]);
        let risc = |name: &str| of(&format!("{RISC}{name}"), json!({}), &[]);
        let (ends, suspends) = (Effect::Deed(OwnerEnd::Sessions), Effect::Deed(OwnerEnd::Suspend));
        assert_eq!(caep("session-revoked", json!({})), ends);
        assert_eq!(risc("sessions-revoked"), ends);
        assert_eq!(caep("token-claims-change", json!({"claims": {"role": "x"}})), ends);
        for (change, expected) in
            [("revoke", suspends), ("delete", suspends), ("create", Effect::Noted), ("update", Effect::Noted)]
        {
            assert_eq!(caep("credential-change", json!({ "change_type": change })), expected, "{change}");
        }
        assert_eq!(risc("credential-compromise"), suspends);
        assert_eq!(risc("account-disabled"), suspends);
        assert_eq!(risc("account-purged"), Effect::Deed(OwnerEnd::Revoke));
        assert_eq!(risc("account-enabled"), Effect::Noted, "a human approves again");
        assert_eq!(of(&format!("{}verification", SSF[0]), json!({}), &[]), Effect::OfStream);
        assert_eq!(of("https://example.com/account-disabled", json!({}), &[]), Effect::Noted);
        assert_eq!(of(&format!("{CAEP}account-disabled"), json!({}), &[]), Effect::Noted, "another family");
    }

    #[test]
    fn a_worse_standing_suspends_only_where_that_was_said() {
        for (name, worse, better, standing) in [
            (
                "assurance-level-change",
                json!({"change_direction": "decrease"}),
                json!({"change_direction": "increase"}),
                Standing::Assurance,
            ),
            (
                "device-compliance-change",
                json!({"current_status": "not-compliant"}),
                json!({"current_status": "compliant"}),
                Standing::Compliance,
            ),
            (
                "risk-level-change",
                json!({"current_level": "HIGH"}),
                json!({"current_level": "LOW"}),
                Standing::Risk,
            ),
        ] {
            let kind = format!("{CAEP}{name}");
            assert_eq!(of(&kind, worse.clone(), &[]), Effect::Noted, "{name}");
            assert_eq!(of(&kind, worse, &[standing]), Effect::Deed(OwnerEnd::Suspend), "{name}");
            assert_eq!(of(&kind, better, &[standing]), Effect::Noted, "{name}");
        }
    }
}

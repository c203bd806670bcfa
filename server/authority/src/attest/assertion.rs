//! What a word says once its signature holds, checked as RFC 7523, section 3, asks: by whom, of whom, for whom, when, once.
//!
//! Beyond that section: it is for this service and for nobody else, it says when it was made and has a name, and its age is bounded
//! whatever end it says. A human is its subject at its issuer; an address or a name in it identifies nobody.

use obol_secret::text::plain;
use serde_json::{Map, Value};

use super::settings::{Attestor, Owner};
use crate::directory::{Attested, Human, Wanted};
use crate::settings::MAX_SKEW_SECS;

/// The longest subject and name of a token, in bytes. A service account's subject has some 340.
const MAX_NAME_BYTES: usize = 512;

/// What a token says.
pub(super) type Claims = Map<String, Value>;

/// Checks what a token of this issuer says of an agent that wants this. The reason, where it is not taken.
pub(super) fn check(claims: &Claims, by: &Attestor, wanted: &Wanted, now: u64) -> Result<Attested, String> {
    if !is_for(claims, &by.audience) {
        return Err(format!("its `aud` must be {} and nobody else", by.audience));
    }
    let subject = name(claims, "sub")?;
    let jti = name(claims, "jti")?;
    let replayable_until = within_its_time(claims, by.max_age_secs, now)?;
    let rule = by
        .rules
        .iter()
        .find(|rule| {
            rule.claims
                .iter()
                .all(|(claim, values)| claims.get(claim).is_some_and(|said| values.contains(said)))
                && rule.class == wanted.class
                && rule.names.iter().any(|name| name.fits(&wanted.name))
        })
        .ok_or(
            "no rule of its issuer speaks of a token that says this, for an agent of this class and name",
        )?;
    let owner = match &rule.owner {
        Owner::Fixed(human) => human.clone(),
        Owner::Subject { issuer } => Human { issuer: issuer.clone(), subject: subject.to_owned() },
    };
    Ok(Attested {
        issuer: by.issuer.clone(),
        subject: subject.to_owned(),
        jti: jti.to_owned(),
        replayable_until,
        owner,
        roles: rule.roles.clone(),
        secs: rule.secs,
    })
}

/// Whether it is for this audience alone: what others hold too, they could bring here.
fn is_for(claims: &Claims, audience: &str) -> bool {
    match claims.get("aud") {
        Some(Value::String(one)) => one == audience,
        Some(Value::Array(several)) => matches!(several.as_slice(), [Value::String(one)] if one == audience),
        _ => false,
    }
}

fn name<'c>(claims: &'c Claims, claim: &str) -> Result<&'c str, String> {
    let text = claims.get(claim).and_then(Value::as_str);
    text.filter(|text| (1..=MAX_NAME_BYTES).contains(&text.len()) && plain(text) == **text)
        .ok_or_else(|| format!("its `{claim}` must be a text of 1 to {MAX_NAME_BYTES} bytes"))
}

/// Checks its times; until when it could be said again.
fn within_its_time(claims: &Claims, max_age_secs: u64, now: u64) -> Result<u64, String> {
    let time = |claim: &str| match claims.get(claim) {
        None => Ok(None),
        Some(value) => {
            value.as_u64().map(Some).ok_or_else(|| format!("its `{claim}` must be a whole number of seconds"))
        }
    };
    let exp = time("exp")?.ok_or("it has no end (`exp`)")?;
    let iat = time("iat")?.ok_or("it does not say when it was made (`iat`)")?;
    let ahead = now.saturating_add(MAX_SKEW_SECS);
    if iat > ahead || time("nbf")?.is_some_and(|nbf| nbf > ahead) {
        return Err("it is from the future; are the clocks right?".to_owned());
    }
    // There is no leeway at its end: whoever stole it would have that too.
    let too_old_at = iat.saturating_add(max_age_secs);
    if now >= exp {
        return Err("it is over; get a fresh one".to_owned());
    }
    if now >= too_old_at {
        return Err(format!("it is {max_age_secs} s old or more; get a fresh one"));
    }
    Ok(exp.min(too_old_at))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::settings::AttestorSettings;
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn by() -> AttestorSettings {
        let text = json!({ "attestors": [{ "issuer": "https://ci.example", "max_age_secs": 600, "agents": [{
            "claims": { "sub": "repo:corp/app:ref:refs/heads/main", "environment": ["prod", "stage"] },
            "class": "ci", "names": ["ci-*", "deploy"], "roles": ["ci"], "owner": "local:root",
        }]}]});
        AttestorSettings::from_json(text.to_string().as_bytes(), "https://as.example").unwrap()
    }

    fn good() -> Value {
        json!({
            "iss": "https://ci.example", "aud": "https://as.example", "sub": "repo:corp/app:ref:refs/heads/main",
            "jti": "1", "iat": NOW - 10, "nbf": NOW - 10, "exp": NOW + 300, "environment": "prod",
        })
    }

    fn wanted(class: &str, name: &str) -> Wanted {
        Wanted {
            name: name.to_owned(),
            class: class.to_owned(),
            roles: Vec::new(),
            tools: Vec::new(),
            host: String::new(),
            user: String::new(),
            software: String::new(),
        }
    }

    fn checked(claims: &Value, wanted: &Wanted) -> Result<Attested, String> {
        check(claims.as_object().unwrap(), &by().attestors[0], wanted, NOW)
    }

    #[test]
    fn a_word_is_taken_as_its_rule_says() {
        let word = checked(&good(), &wanted("ci", "ci-7")).unwrap();
        assert_eq!((word.owner, word.roles), (Human::local("root"), vec!["ci".to_owned()]));
        assert_eq!((word.replayable_until, word.jti.as_str()), (NOW + 300, "1"));
        assert!(checked(&good(), &wanted("ci", "deploy")).is_ok());
        for (class, name) in [("ci", "deploy-2"), ("ci", "xci-7"), ("coding", "ci-7"), ("ci", "CI-7")] {
            assert!(checked(&good(), &wanted(class, name)).is_err(), "{class} {name}");
        }
    }

    #[test]
    fn each_claim_that_is_not_as_it_must_be_is_refused() {
        let aud = "https://as.example";
        for (claim, value) in [
            ("aud", json!("https://other.example")),
            ("aud", json!([aud, "https://other.example"])),
            ("aud", json!([])),
            ("aud", json!("https://as.example/")),
            ("aud", Value::Null),
            ("sub", json!("repo:corp/app:ref:refs/heads/evil")),
            ("sub", json!("")),
            ("sub", json!(7)),
            ("jti", Value::Null),
            ("jti", json!("")),
            ("jti", json!("x".repeat(513))),
            ("exp", Value::Null),
            ("exp", json!(NOW)),
            ("exp", json!(NOW - 1)),
            ("exp", json!("never")),
            ("exp", json!(1.8e9)),
            ("iat", Value::Null),
            ("iat", json!(NOW + 31)),
            ("iat", json!(NOW - 600)),
            ("iat", json!(-1)),
            ("nbf", json!(NOW + 31)),
            ("nbf", json!("now")),
            ("environment", json!("dev")),
            ("environment", json!(["prod"])),
            ("environment", Value::Null),
        ] {
            let mut claims = good();
            match &value {
                Value::Null => drop(claims.as_object_mut().unwrap().remove(claim)),
                value => claims[claim] = value.clone(),
            }
            assert!(checked(&claims, &wanted("ci", "ci-7")).is_err(), "{claim} {value}");
        }
        let mut many = good();
        (many["aud"], many["environment"]) = (json!([aud]), json!("stage"));
        assert!(checked(&many, &wanted("ci", "ci-7")).is_ok(), "the control: one audience in a list");
    }
}

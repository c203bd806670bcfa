//! Whom a security event is about (RFC 9493, and the complex subjects of the Shared Signals Framework). Only humans that its
//! issuer vouches for are ever found: whoever says something of another's says it of nobody.

use obol_session::SessionId;
use serde_json::{Map, Value};

use super::settings::TransmitterSettings;
use crate::directory::{Human, Subject};
use crate::id::AgentId;

/// The longest name, in bytes.
const MAX_NAME_BYTES: usize = 1_024;
/// The most names of one subject.
const MAX_ALIASES: usize = 32;

/// It is not a subject of this form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct NotASubject;

fn text<'v>(of: &'v Map<String, Value>, member: &str) -> Result<&'v str, NotASubject> {
    let text = of.get(member).and_then(Value::as_str).ok_or(NotASubject)?;
    (!text.is_empty() && text.len() <= MAX_NAME_BYTES).then_some(text).ok_or(NotASubject)
}

/// How a subject is written. Older events say `subject_type`, with dashes.
fn format(of: &Map<String, Value>) -> Result<String, NotASubject> {
    match (text(of, "format"), text(of, "subject_type")) {
        (Ok(format), _) => Ok(format.to_owned()),
        (Err(_), Ok(kind)) => Ok(kind.replace('-', "_")),
        (Err(error), Err(_)) => Err(error),
    }
}

/// The subject, or `None` where it is nobody who could have agents here.
pub(super) fn subject(said: &Value, by: &TransmitterSettings) -> Result<Option<Subject>, NotASubject> {
    let of = said.as_object().ok_or(NotASubject)?;
    if format(of)? != "complex" {
        let human = human(of, by)?;
        return Ok(human.map(|human| Subject { human, agent: None, session: None }));
    }
    let part = |member: &str| of.get(member).map(|part| part.as_object().ok_or(NotASubject)).transpose();
    let Some(user) = part("user")? else { return Ok(None) };
    let Some(human) = human(user, by)? else { return Ok(None) };
    // What is not a name of ours is one of the provider's, and says nothing here: then it is about all that the human has.
    let opaque =
        |part: Option<&Map<String, Value>>| part.and_then(|part| text(part, "id").ok()).map(str::to_owned);
    let session = opaque(part("session")?).and_then(|id| session_called(&id));
    let agent = opaque(part("application")?).and_then(|id| AgentId::parse(&id));
    Ok(Some(Subject { human, agent, session }))
}

/// One of our sessions, by the 16 hexadecimal digits that we call it.
fn session_called(id: &str) -> Option<SessionId> {
    let is_ours = id.len() == 16 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_ours.then(|| u64::from_str_radix(id, 16).ok().map(SessionId::from_u64)).flatten()
}

fn human(of: &Map<String, Value>, by: &TransmitterSettings) -> Result<Option<Human>, NotASubject> {
    let named = |subject: &str| Some(Human { issuer: by.users_of.clone(), subject: subject.to_owned() });
    Ok(match format(of)?.as_str() {
        "iss_sub" => {
            let (issuer, subject) = (text(of, "iss")?, text(of, "sub")?);
            if issuer == by.issuer || issuer == by.users_of { named(subject) } else { None }
        }
        "opaque" => named(text(of, "id")?),
        "email" => {
            let email = text(of, "email")?;
            let (user, domain) = email.rsplit_once('@').ok_or(NotASubject)?;
            let is_theirs = by.email_domain.as_ref().is_some_and(|known| known.eq_ignore_ascii_case(domain));
            if is_theirs && !user.contains('@') { named(user) } else { None }
        }
        "aliases" => {
            let names = of.get("identifiers").and_then(Value::as_array).ok_or(NotASubject)?;
            if names.len() > MAX_ALIASES {
                return Err(NotASubject);
            }
            for name in names {
                let name = name.as_object().ok_or(NotASubject)?;
                // RFC 9493: aliases are not in each other.
                if format(name)? == "aliases" {
                    return Err(NotASubject);
                }
                if let Some(human) = human(name, by)? {
                    return Ok(Some(human));
                }
            }
            None
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssf::EventSettings;
    use serde_json::json;

    fn by(more: &str) -> EventSettings {
        let text = format!(r#"{{"transmitters": [{{"issuer": "https://idp.example"{more}}}]}}"#);
        EventSettings::from_json(text.as_bytes(), "https://as.example", std::path::Path::new("/")).unwrap()
    }

    fn of(said: &Value, more: &str) -> Result<Option<Subject>, NotASubject> {
        subject(said, &by(more).transmitters[0])
    }

    fn anna(issuer: &str) -> Human {
        Human { issuer: issuer.to_owned(), subject: "anna".to_owned() }
    }

    #[test]
    fn a_human_is_found_by_what_their_issuer_calls_them() {
        let found = |said: Value| of(&said, "").unwrap().map(|subject| subject.human);
        let expected = Some(anna("https://idp.example"));
        assert_eq!(
            found(json!({"format": "iss_sub", "iss": "https://idp.example", "sub": "anna"})),
            expected
        );
        assert_eq!(found(json!({"format": "opaque", "id": "anna"})), expected);
        assert_eq!(
            found(json!({"subject_type": "iss-sub", "iss": "https://idp.example", "sub": "anna"})),
            expected
        );
        let aliases = json!({"format": "aliases", "identifiers": [
            {"format": "phone_number", "phone_number": "+1"}, {"format": "opaque", "id": "anna"},
        ]});
        assert_eq!(found(aliases), expected);
        let local =
            of(&json!({"format": "opaque", "id": "anna"}), r#", "users_of": "local""#).unwrap().unwrap();
        assert_eq!(local.human, anna("local"));
    }

    #[test]
    fn nobody_speaks_of_the_humans_of_another_issuer_or_domain() {
        let found = |said: Value, more: &str| of(&said, more).unwrap();
        for issuer in ["https://other.example", "https://idp.example/", "https://IDP.example", "local"] {
            let said = json!({"format": "iss_sub", "iss": issuer, "sub": "anna"});
            assert_eq!(found(said, ""), None, "{issuer}");
        }
        let email = |email: &str| json!({"format": "email", "email": email});
        assert_eq!(found(email("anna@corp.example"), ""), None, "nothing was said of addresses");
        let domain = r#", "email_domain": "corp.example""#;
        assert_eq!(found(email("anna@CORP.example"), domain).unwrap().human, anna("https://idp.example"));
        for other in ["anna@corp.example.evil.example", "anna@evil.example", "anna@evil@corp.example"] {
            assert_eq!(found(email(other), domain), None, "{other}");
        }
    }

    #[test]
    fn a_complex_subject_narrows_to_a_session_or_an_agent_of_ours() {
        let user = json!({"format": "iss_sub", "iss": "https://idp.example", "sub": "anna"});
        let complex = |member: &str, id: &str| {
            let mut said = json!({"format": "complex", "user": user});
            said[member] = json!({"format": "opaque", "id": id});
            of(&said, "").unwrap().unwrap()
        };
        assert_eq!(complex("session", "000000000000004d").session, Some(SessionId::from_u64(77)));
        for of_provider in ["77", "provider-session", "000000000000004D", "+00000000000004d"] {
            assert_eq!(complex("session", of_provider).session, None, "{of_provider}");
        }
        let id = AgentId::generate(&mut crate::id::SystemRandom);
        assert_eq!(complex("application", id.as_str()).agent, Some(id));
        assert_eq!(complex("application", "an app").agent, None);
        let device = json!({"format": "complex", "device": {"format": "opaque", "id": "d"}});
        assert_eq!(of(&device, "").unwrap(), None, "nobody");
    }

    #[test]
    fn what_is_not_a_subject_is_refused() {
        for bad in [
            json!("anna"),
            json!({}),
            json!({"format": "iss_sub", "iss": "https://idp.example"}),
            json!({"format": "opaque", "id": ""}),
            json!({"format": "opaque", "id": "x".repeat(MAX_NAME_BYTES + 1)}),
            json!({"format": "email", "email": "anna"}),
            json!({"format": "complex", "user": "anna"}),
            json!({"format": "aliases", "identifiers": [{"format": "aliases", "identifiers": []}]}),
        ] {
            assert_eq!(of(&bad, ""), Err(NotASubject), "{bad}");
        }
        assert_eq!(
            of(&json!({"format": "did", "url": "did:x"}), ""),
            Ok(None),
            "of a kind that nobody has here"
        );
    }
}

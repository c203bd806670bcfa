//! What an agent asks to be registered as: what the operator set, and for the rest what the agent says.

use obol_ipc::auth::RegisterParams;
use obol_ipc::names::{ToolName, WishedName};
use obol_ipc::refusal::Refusal;

use crate::authenticator::Wishes;

/// The class of an agent of which nobody says one.
const USUAL_CLASS: &str = "agent";

/// Both together. What the operator set cannot be said otherwise: the agent may be hijacked, and a human who decides should
/// read what the operator wrote.
pub(crate) fn merged(set: &Wishes, said: &RegisterParams) -> Result<Wishes, Refusal> {
    let name = one("name", &set.name, said.name.as_ref())?;
    if name.is_empty() {
        return Err(Refusal::invalid_argument(
            "name: say what the agent is to be called (`obol register --name NAME`), or set authenticator.name",
        ));
    }
    let class = one("class", &set.class, said.class.as_ref())?;
    let roles = said.roles.iter().map(WishedName::as_str);
    let tools = said.tools.iter().map(ToolName::as_str);
    Ok(Wishes {
        name,
        class: if class.is_empty() { USUAL_CLASS.to_owned() } else { class },
        roles: several("roles", &set.roles, roles)?,
        tools: several("tools", &set.tools, tools)?,
        host: set.host.clone(),
        user: set.user.clone(),
        software: set.software.clone(),
    })
}

fn one(what: &str, set: &str, said: Option<&WishedName>) -> Result<String, Refusal> {
    match said.map(WishedName::as_str) {
        None => Ok(set.to_owned()),
        Some(said) if set.is_empty() || said == set => Ok(said.to_owned()),
        Some(_) => Err(Refusal::invalid_argument(format_args!(
            "{what}: the operator set it to {set}; leave it out, or have the operator change authenticator.{what}"
        ))),
    }
}

fn several<'a>(
    what: &str,
    set: &[String],
    said: impl Iterator<Item = &'a str>,
) -> Result<Vec<String>, Refusal> {
    let said: Vec<String> = said.map(str::to_owned).collect();
    if said.is_empty() || said == set {
        return Ok(set.to_vec());
    }
    if set.is_empty() {
        return Ok(said);
    }
    Err(Refusal::invalid_argument(format_args!(
        "{what}: the operator set them to {}; leave them out, or have the operator change authenticator.{what}",
        set.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> Wishes {
        Wishes { name: "builder".into(), roles: vec!["ci".into()], host: "h".into(), ..Wishes::default() }
    }

    fn said(name: Option<&str>, roles: &[&str]) -> RegisterParams {
        let wished = |name: &str| WishedName::new(name).unwrap();
        RegisterParams {
            name: name.map(wished),
            roles: roles.iter().map(|role| wished(role)).collect(),
            tools: vec![ToolName::new("search").unwrap()],
            ..RegisterParams::default()
        }
    }

    #[test]
    fn the_agent_fills_in_what_the_operator_left_open() {
        let whole = merged(&set(), &said(Some("builder"), &["ci"])).unwrap();
        assert_eq!((whole.name.as_str(), whole.class.as_str()), ("builder", "agent"));
        assert_eq!((whole.roles, whole.tools), (vec!["ci".to_owned()], vec!["search".to_owned()]));
        assert_eq!(merged(&Wishes::default(), &said(Some("x"), &["dev"])).unwrap().roles, ["dev"]);
    }

    #[test]
    fn the_agent_cannot_say_otherwise_what_the_operator_set() {
        for (said, names) in [
            (said(Some("admin"), &[]), "authenticator.name"),
            (said(None, &["ci", "admin"]), "authenticator.roles"),
        ] {
            let refused = merged(&set(), &said).unwrap_err();
            assert!(refused.message().contains(names), "{refused}");
        }
        assert!(merged(&Wishes::default(), &said(None, &[])).unwrap_err().message().contains("--name"));
    }
}

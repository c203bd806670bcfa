//! Where a session's tokens can go: what the service says of its tools, in the words of `auth.sock`.

use obol_ipc::names::{Audience, ToolName};
use obol_session::Grant;

use crate::derive::Route;
use crate::known::Place;

/// Every place with every tool, in order: a tool's routes, or all of its resource server where it has none.
pub(crate) fn of_session(grants: &[Grant], routes: &[Route]) -> Vec<(Place, ToolName)> {
    let mut all: Vec<_> = grants.iter().filter_map(|grant| of_grant(grant, routes)).flatten().collect();
    all.sort();
    // A tool may be granted in several ways.
    all.dedup();
    all
}

fn of_grant(grant: &Grant, routes: &[Route]) -> Option<Vec<(Place, ToolName)>> {
    let (audience, tool) =
        (Audience::new(grant.aud.as_str()).ok()?, ToolName::new(grant.tool.as_str()).ok()?);
    let constraints = grant.constraints.as_ref();
    let sealed = constraints.and_then(|constraints| constraints.require_channel_encryption) == Some(true);
    let anywhere = Place { audience, url: None, method: None, path: None, via: None, sealed };
    let of_it = routes.iter().filter(|route| route.tool == grant.tool && route.aud == grant.aud);
    let mut places: Vec<_> = of_it
        .map(|route| Place {
            url: route.url.clone(),
            method: route.method.clone(),
            path: Some(route.path.clone()),
            via: route.via.clone(),
            ..anywhere.clone()
        })
        .collect();
    if places.is_empty() {
        places.push(anywhere);
    }
    Some(places.into_iter().map(|place| (place, tool.clone())).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_tool_has_its_routes_or_all_of_its_resource_server() {
        let grant = |tool: &str| -> Grant {
            let fields = json!({"tool": tool, "aud": "https://a", "action": "call", "resource": "**"});
            serde_json::from_value(fields).unwrap()
        };
        let route = |path: &str, aud: &str| Route {
            tool: "search".into(),
            aud: aud.into(),
            url: None,
            method: Some("GET".into()),
            path: path.into(),
            via: Some("https://gateway".into()),
        };
        let routes = [route("/b", "https://a"), route("/x", "https://other"), route("/a", "https://a")];
        let found = of_session(&[grant("search"), grant("pay")], &routes);
        let words: Vec<_> = found
            .iter()
            .map(|(place, tool)| (tool.as_str(), place.path.as_deref(), place.via.is_some()))
            .collect();
        assert_eq!(words, [("pay", None, false), ("search", Some("/a"), true), ("search", Some("/b"), true)]);
    }
}

//! A path of a document as a route's: what stands between two slashes is text or one place, and nothing is made wider than it was.

/// The longest path, in bytes.
const MAX_PATH_BYTES: usize = 2_048;
/// The longest name of a place.
const MAX_NAME: usize = 64;

/// Why a path is no route's.
pub(super) type Why = &'static str;

/// A path, and the resource that it stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Path {
    base: Vec<String>,
    segments: Vec<Segment>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Segment {
    Text(String),
    Place(String),
}

/// The path of a server's address, which all paths begin with.
pub(super) fn base(path: &str) -> Result<Vec<String>, Why> {
    let path = path.trim_end_matches('/');
    let Some(path) = path.strip_prefix('/') else {
        return if path.is_empty() { Ok(Vec::new()) } else { Err("a path begins with a slash") };
    };
    path.split('/').map(|segment| check_text(segment).map(|()| segment.to_owned())).collect()
}

/// Whether a segment has no sign that the gateway, a resource or the API could take for another one.
fn check_text(text: &str) -> Result<(), Why> {
    let is_word = |sign: char| sign.is_ascii_alphanumeric() || "-._~".contains(sign);
    if text.is_empty() {
        return Err("it has an empty segment");
    }
    if text.chars().any(|sign| !is_word(sign) && !"!$&'()+,=:@".contains(sign)) {
        return Err("it has a sign that no route's path has");
    }
    let is_dots = text.split(|sign| !is_word(sign)).any(|word| matches!(word, "." | ".."));
    match is_dots || text.trim_matches('+').is_empty() {
        true => Err("it has a segment that could be read as another one"),
        false => Ok(()),
    }
}

impl Path {
    /// Reads the template of a path behind a base.
    pub(super) fn read(base: &[String], path: &str) -> Result<Self, Why> {
        let rest = path.strip_prefix('/').ok_or("it does not begin with a slash")?;
        if path.len() > MAX_PATH_BYTES {
            return Err("it is too long");
        }
        if path.contains(['?', '#']) {
            return Err("it has a query or a fragment");
        }
        let (mut segments, mut names) = (Vec::new(), Vec::new());
        let count = rest.split('/').count();
        for (number, segment) in rest.split('/').enumerate() {
            let inside = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            segments.push(match inside {
                Some(inside) if !inside.contains(['{', '}']) => Segment::Place(name(inside, &mut names)),
                _ if segment.contains(['{', '}']) => {
                    return Err("a segment is text or one parameter, and not both");
                }
                _ if segment.is_empty() && number + 1 == count => Segment::Text(String::new()),
                _ => check_text(segment).map(|()| Segment::Text(segment.to_owned()))?,
            });
        }
        Ok(Self { base: base.to_vec(), segments })
    }

    /// As a route has it.
    pub(super) fn pattern(&self) -> String {
        let base = self.base.iter().cloned();
        base.chain(self.segments.iter().map(Segment::written))
            .fold(String::new(), |text, segment| text + "/" + &segment)
    }

    /// The resource, without the base.
    pub(super) fn resource(&self) -> String {
        let segments: Vec<_> =
            self.segments.iter().map(Segment::written).filter(|text| !text.is_empty()).collect();
        match segments.is_empty() {
            true => "/".to_owned(),
            false => segments.join("/"),
        }
    }

    /// The first text in it.
    pub(super) fn first_text(&self) -> Option<&str> {
        self.segments.iter().find_map(|segment| match segment {
            Segment::Text(text) => Some(text.as_str()).filter(|text| !text.is_empty()),
            Segment::Place(_) => None,
        })
    }

    /// What decides which of two routes comes first, and whether they are for the same requests.
    pub(super) fn order(&self) -> Vec<(bool, String)> {
        let base = self.base.iter().map(|text| (false, text.clone()));
        let own = self.segments.iter().map(|segment| match segment {
            Segment::Text(text) => (false, text.clone()),
            Segment::Place(_) => (true, String::new()),
        });
        base.chain(own).collect()
    }
}

impl Segment {
    fn written(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Place(name) => format!("{{{name}}}"),
        }
    }
}

/// A name for a place that is like the document's, and none of those before it.
fn name(text: &str, taken: &mut Vec<String>) -> String {
    let plain = |sign: char| if sign.is_ascii_alphanumeric() { sign } else { '_' };
    let mut like: String = text.chars().take(MAX_NAME).map(plain).collect();
    if like.is_empty() {
        like.push_str("segment");
    }
    let is_free = |name: &str, taken: &[String]| {
        let lower = name.to_ascii_lowercase();
        lower != "query" && lower != "body" && !taken.contains(&lower)
    };
    let mut name = like.clone();
    let mut number = 2;
    while !is_free(&name, taken) {
        name = format!("{like}_{number}");
        number += 1;
    }
    taken.push(name.to_ascii_lowercase());
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str) -> Result<(String, String), Why> {
        let path = Path::read(&base("/v1")?, path)?;
        Ok((path.pattern(), path.resource()))
    }

    #[test]
    fn a_path_becomes_a_routes_path_and_a_resource() {
        for (path, pattern, resource) in [
            ("/", "/v1/", "/"),
            ("/users/", "/v1/users/", "users"),
            (
                "/users/{user-id}/keys/{User_id}",
                "/v1/users/{user_id}/keys/{User_id_2}",
                "users/{user_id}/keys/{User_id_2}",
            ),
            ("/{query}/{body}/{}", "/v1/{query_2}/{body_2}/{segment}", "{query_2}/{body_2}/{segment}"),
            ("/a:b/@me", "/v1/a:b/@me", "a:b/@me"),
        ] {
            assert_eq!(read(path), Ok((pattern.to_owned(), resource.to_owned())), "{path}");
        }
    }

    #[test]
    fn nothing_is_made_wider_than_it_was() {
        for path in [
            "users",
            "",
            "/a//b",
            "/a/../b",
            "/a/.",
            "/..",
            "/..:x",
            "/%2e%2e",
            "/a%2Fb",
            "/a?b=c",
            "/a#b",
            "/*",
            "/a/**",
            "/{a}.json",
            "/v1/{name}:cancel",
            "/{a}-{b}",
            "/{{a}}",
            "/{a",
            "/a}",
            "/a\"b",
            "/a\nb",
            "/a\\b",
            "/caf\u{e9}",
            "/a b",
            "/+",
            "/a;b",
        ] {
            assert!(read(path).is_err(), "{path}");
        }
        assert!(base("/v1/..").is_err() && base("v1").is_err() && base("/a//b").is_err());
        assert_eq!(base("/"), Ok(Vec::new()));
    }
}

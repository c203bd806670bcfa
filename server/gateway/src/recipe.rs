//! Files of common APIs, ready to be written: where they are, where their credential goes, and which requests are calls of which tool.
//! Each says itself what it does not cover.

/// Name and text of each.
const ALL: [(&str, &str); 6] = [
    ("anthropic", include_str!("../recipes/anthropic.toml")),
    ("github", include_str!("../recipes/github.toml")),
    ("gitlab", include_str!("../recipes/gitlab.toml")),
    ("openai", include_str!("../recipes/openai.toml")),
    ("slack", include_str!("../recipes/slack.toml")),
    ("stripe", include_str!("../recipes/stripe.toml")),
];

/// The text of the file of an API, where there is a recipe of this name.
#[must_use]
pub fn recipe(name: &str) -> Option<&'static str> {
    ALL.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// The names of all recipes.
pub fn recipes() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Api;

    #[test]
    fn every_recipe_is_a_file_that_can_be_served_and_says_what_it_does_not_cover() {
        assert_eq!(recipes().count(), 6);
        for name in recipes() {
            let text = recipe(name).unwrap();
            let api: Api = toml::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}"));
            api.check().unwrap_or_else(|why| panic!("{name}: {why}"));
            assert!(api.count() >= 4 && text.contains("\n# Not covered: "), "{name}");
            let tools = text.lines().filter_map(|line| line.strip_prefix("tool = \""));
            assert!(tools.into_iter().all(|tool| tool.starts_with(&format!("{name}_"))), "{name}");
            assert!(text.contains("\n[credential]\n") && text.contains("upstream = \"https://"), "{name}");
        }
        assert!(recipe("GitHub").is_none() && recipe("saas").is_none());
    }
}

//! `docs/map.md` and the other pages link to nothing that is not there.

use std::path::Path;

use super::root;

/// What `](…)` leads to in a page, without what is elsewhere and without the place within a page.
fn links(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let targets = targets.filter(|target| !target.contains("://") && !target.contains(char::is_whitespace));
    targets.map(|target| target.split('#').next().unwrap()).filter(|target| !target.is_empty()).collect()
}

fn missing(page: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(page).unwrap();
    let folder = page.parent().unwrap();
    links(&text).into_iter().filter(|link| !folder.join(link).exists()).map(str::to_owned).collect()
}

#[test]
fn every_link_within_the_documents_leads_somewhere() {
    let mut pages = vec![root().join("README.md"), root().join("CONTRIBUTING.md")];
    pages.extend(std::fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path()));
    assert!(pages.len() > 8);
    for page in pages.iter().filter(|page| page.extension().is_some_and(|extension| extension == "md")) {
        assert_eq!(missing(page), Vec::<String>::new(), "{}", page.display());
    }
}

#[test]
fn a_link_that_leads_nowhere_is_noticed() {
    let text = "[a](nowhere.md#part) [b](https://example.com) [c](#part) `x](y z)`";
    assert_eq!(links(text), ["nowhere.md"]);
}

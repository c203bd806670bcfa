//! What loads, and what does not, and what is said of it.

use proptest::prelude::*;

use crate::catalogue::Catalogue;
use crate::example::{CATALOGUE, NOON, POLICIES, agent, refused, source, version};
use crate::limits::{MAX_POLICIES, MAX_POLICY_WORDS, MAX_PROBLEMS};
use crate::version::PolicyVersion;

#[test]
fn the_example_loads_and_nothing_is_to_be_said_of_it() {
    let version = version(CATALOGUE, &[POLICIES]);
    assert_eq!(version.findings(), []);
    let ids: Vec<_> = version.policy_ids().map(ToString::to_string).collect();
    assert_eq!(ids.len(), 6);
    assert_eq!((ids[0].as_str(), ids[5].as_str()), ("analysts-read", "four-eyes"));
}

#[test]
fn each_policy_that_is_wrong_is_told_with_its_file_and_line() {
    let permit = "permit (principal, action == Obol::Action::\"use\", resource)";
    let cases = [
        (format!("\n{permit};"), "1.cedar, line 2: this policy has no name"),
        (
            format!("@id(\"a\") {permit};\n// again\n\n@id(\"a\")\n{permit};"),
            "1.cedar, line 4: @id(\"a\") is taken, in 1.cedar, line 1",
        ),
        (format!("@id(\"\") {permit};"), "@id must be 1 to 128 bytes"),
        (format!("@id {permit};"), "@id must be 1 to 128 bytes"),
        (format!("@id(\"a\\u{{202e}}\") {permit};"), "@id must be 1 to 128 bytes"),
        ("\n\npermit principal".to_owned(), "1.cedar, line 3: unexpected token"),
        (
            format!("@id(\"a\")\n{permit}\nwhen {{ context.offer.tll > 1 }};"),
            "1.cedar, line 3: policy a: attribute `offer.tll` in context for Obol::Action::\"use\" not found; did you mean `ttl`?",
        ),
        (
            format!("@id(\"a\") {permit} when {{ context.offer.max_rows > 1 }};"),
            "policy a: unable to guarantee safety of access to optional attribute",
        ),
        (format!("@id(\"a\") {permit} when {{ context.offer.ttl == \"60\" }};"), "policy a: the types"),
        (format!("@id(\"a\") {permit} when {{ context.offer.ttl > \"60\" }};"), "policy a: unexpected type"),
        (
            "@id(\"a\") permit (principal == Obol::User::\"x\", action, resource);".to_owned(),
            "policy a: unrecognized entity type `Obol::User`",
        ),
        (
            "@id(\"a\") permit (principal, action == Obol::Action::\"usee\", resource);".to_owned(),
            "policy a: unrecognized action",
        ),
        ("@id(\"a\") permit (principal == ?principal, action, resource);".to_owned(), "template"),
        (
            "@id(\"a\") forbid (principal, action, resource in Obol::Org::\"acme\");".to_owned(),
            "policy a: it speaks of the organisation \"acme\", but the catalogue's organisation is \"example\"",
        ),
        (
            format!("@id(\"a\") {permit} when {{ {}true }};", "true && ".repeat(MAX_POLICY_WORDS)),
            "more than 1000 words and signs",
        ),
    ];
    for (policies, why) in cases {
        let error = refused(CATALOGUE, &[&policies]).to_string();
        assert!(error.contains(why), "{why}\n is not in\n{error}");
    }
    let other_file = format!("@id(\"four-eyes\") {permit};");
    let error = refused(CATALOGUE, &[POLICIES, &other_file]).to_string();
    assert!(error.contains("2.cedar, line 1") && error.contains("in 1.cedar, line 13"), "{error}");
}

#[test]
fn a_policy_of_an_organisation_needs_a_catalogue_that_names_it() {
    let nobodys = CATALOGUE.replace("org = \"example\"", "");
    let error =
        refused(&nobodys, &["@id(\"a\") forbid (principal, action, resource in Obol::Org::\"acme\");"]);
    assert!(error.to_string().contains("put `org = \"acme\"` at its head"), "{error}");
}

#[test]
fn many_problems_are_told_at_once_and_not_without_end() {
    let many = "permit (principal, action, resource);\n".repeat(MAX_PROBLEMS + 7);
    let error = refused(CATALOGUE, &[&many]);
    assert_eq!(error.problems().len(), MAX_PROBLEMS);
    assert!(error.to_string().ends_with("and 7 more"), "{error}");
}

#[test]
fn there_are_bounds_on_how_many_policies_there_are() {
    let policies = |count: usize| {
        let each = |number| format!("@id(\"p{number}\") permit (principal, action, resource);");
        (0..count).map(each).collect::<String>()
    };
    assert_eq!(version(CATALOGUE, &[&policies(100)]).policy_ids().count(), 100);
    let error = refused(CATALOGUE, &[&policies(MAX_POLICIES + 1)]).to_string();
    assert!(error.contains("more than 1000"), "{error}");
    let comment = format!("//{}", "x".repeat(1 << 20));
    assert!(refused(CATALOGUE, &[&comment]).to_string().contains("1048576 bytes together"));
    let files = vec![""; 257];
    assert!(refused(CATALOGUE, &files).to_string().contains("more than 256 files"));
}

/// Text that is one policy, as deep as a policy may be, in several ways.
fn deep_policies() -> Vec<String> {
    let words = MAX_POLICY_WORDS - 60;
    let policy = |condition: String| {
        format!(
            "@id(\"deep\") permit (principal, action == Obol::Action::\"use\", resource) when {{ {condition} }};"
        )
    };
    vec![
        policy(format!("{}true{}", "(".repeat(words / 2), ")".repeat(words / 2))),
        policy(format!("{}true", "true && ".repeat(words / 3))),
        policy(format!("{}true", "!!!!(".repeat(words / 6)) + &")".repeat(words / 6)),
        policy(format!("{}true", "if true then true else ".repeat(words / 6))),
        policy(format!("{}1{} == 1", "[".repeat(words / 2), "]".repeat(words / 2))),
        policy(format!("{}1{} == 1", "{a: ".repeat(words / 4), "}".repeat(words / 4))),
        policy(format!("context{}", ".a".repeat(words / 2))),
        policy(format!("1{} == 1", " + 1".repeat(words / 2))),
        "(".repeat(words),
        "@id(\"a\")".repeat(words / 6),
    ]
}

#[test]
fn no_policy_is_deep_enough_to_end_the_process() {
    // As small as stacks of threads are by default; the loading itself brings a stack of its own.
    let small = std::thread::Builder::new().stack_size(2 << 20).spawn(|| {
        let mut loaded = 0;
        for policy in deep_policies() {
            match PolicyVersion::load(source(CATALOGUE, &[&policy])) {
                Ok(version) => {
                    loaded += 1;
                    let _decision = version.decide(&agent(&[]), &NOON).unwrap();
                    assert!(!version.findings().is_empty());
                }
                Err(error) => assert!(!error.problems().is_empty()),
            }
        }
        loaded
    });
    assert!(small.unwrap().join().unwrap() >= 2, "some of these are valid");
}

#[test]
fn each_line_of_a_catalogue_that_is_wrong_is_told() {
    let cases = [
        ("org = \"example\"", "org = \"\"", "line 2: org must be"),
        ("org = \"example\"", "organisation = \"example\"", "line 2: unknown field `organisation`"),
        ("\"query_database\"", "\"query database\"", "line 5: a tool's name must be"),
        ("\"https://analytics.example\"", "\"\"", "line 5: tool \"query_database\": the audience must be"),
        ("\"medium\"", "\"middling\"", "line 8: unknown variant `middling`"),
        ("risk = \"medium\"", "", "missing field `risk`"),
        ("sets = [\"db\"]", "sets = [\"\\u0007\"]", "the set \"\\u{7}\" is not a name"),
        ("\"/v1/query/**\"", "\"v1/query\"", "must begin with /"),
        ("\"/v1/query/**\"", "\"/v1/../query\"", "no dot segments"),
        ("\"/v1/query/**\"", "\"/v1/%2e%2e/query\"", "no dot segments"),
        ("\"GET\"", "\"get\"", "must be in capitals"),
        ("path = ", "via = \"ftp://x\", path = ", "must be an origin"),
        ("path = ", "paths = ", "line 9: unknown field `paths`"),
        (
            "name = \"full\"",
            "name = \"deny\"",
            "line 11: tool \"query_database\": an offer cannot be named \"deny\"",
        ),
        (
            "name = \"full\"",
            "name = \"billing-read\"",
            "line 16: tool \"query_database\" has two offers \"billing-read\"",
        ),
        ("name = \"full\"", "title = \"full\"", "unknown field `title`"),
        (
            "[\"read\", \"write\"]",
            "[]",
            "line 11: offer \"full\": tool \"query_database\": action is missing",
        ),
        ("[\"read\", \"write\"]", "[\"read\", \"read\"]", "action \"read\" is there twice"),
        ("[\"read\", \"write\"]", "3", "line 12: a string or a list of strings"),
        ("resource = \"**\"", "resource = \"\"", "resource is empty"),
        ("ttl = 60\n  [[", "ttl = 0\n  [[", "ttl must be 1 to 3600 seconds"),
        ("ttl = 60\n  [[", "ttl = -1\n  [[", "line 14: "),
        ("ttl = 60\n  [[", "ttl = 60\n  trust_level = 3\n  [[", "line 15: unknown field `trust_level`"),
        ("max_rows = 1000", "max_row = 1000", "there is no constraint `max_row`"),
        ("max_rows = 1000", "max_calls = 2", "max_calls must be 1"),
        ("max_rows = 1000", "data_classification = \"@LONG@\"", "longer than 32767 bytes"),
    ];
    let _catalogue = Catalogue::from_toml(CATALOGUE).unwrap();
    for (right, wrong, why) in cases {
        let text = CATALOGUE.replacen(right, wrong, 1).replace("@LONG@", &"x".repeat(40_000));
        assert_ne!(text, CATALOGUE, "{right}");
        let error = Catalogue::from_toml(&text).unwrap_err().to_string();
        assert!(error.contains(why), "{why}\n is not in\n{error}");
    }
    let tool = CATALOGUE.replace("org = \"example\"", "");
    let twice = Catalogue::from_toml(&format!("{CATALOGUE}{tool}")).unwrap_err().to_string();
    assert!(twice.contains("there for this audience already, in line 5"), "{twice}");
    let none = Catalogue::from_toml("[[tool]]\nname = \"a\"\naudience = \"b\"\nrisk = \"low\"\n");
    assert!(none.unwrap_err().to_string().contains("has no offers"));
    let long = Catalogue::from_toml(&"#".repeat((1 << 20) + 1)).unwrap_err().to_string();
    assert!(long.contains("longer than 1048576 bytes"), "{long}");
}

#[test]
fn a_catalogue_has_no_more_offers_than_a_session_may_be_asked_about() {
    let offers = |count: usize| {
        let each = |number| {
            format!("  [[tool.offer]]\n  name = \"o{number}\"\n  action = \"a\"\n  resource = \"**\"\n")
        };
        let offers: String = (0..count).map(each).collect();
        Catalogue::from_toml(&format!("[[tool]]\nname = \"a\"\naudience = \"b\"\nrisk = \"low\"\n{offers}"))
    };
    assert!(offers(5_000).is_ok());
    assert!(offers(5_001).unwrap_err().to_string().contains("at most 5000"));
}

#[test]
fn what_is_valid_and_may_be_a_mistake_is_found() {
    let catalogue = format!(
        "{CATALOGUE}{}",
        r#"
[[tool]]
name = "orphan"
audience = "https://other.example"
risk = "low"
offer = [
    { name = "little", action = "read", resource = "a/**" },
    { name = "much", action = ["read", "write"], resource = "**" },
]
"#
    );
    let policies = r#"
@id("typing-error") forbid (principal, action == Obol::Action::"use", resource == Obol::Tool::"qurey_database");
@id("never") permit (principal in Obol::Role::"analyst", action == Obol::Action::"use", resource in Obol::ToolSet::"db")
when { context.offer.ttl < 1 && false };
"#;
    let findings = version(&catalogue, &[policies]).findings();
    let told: Vec<_> = findings.iter().map(ToString::to_string).collect();
    let expected = [
        "1.cedar, line 3: policy never: policy is impossible",
        "1.cedar, line 2: policy typing-error: Obol::Tool::\"qurey_database\" is not in the catalogue",
        "no policy permits useUnattended",
        "tool \"orphan\" at \"https://other.example\": no policy permits anybody to use it",
        "tool \"orphan\" at \"https://other.example\": offer \"much\" allows all that offer \"little\" does, and stands behind it",
    ];
    for why in expected {
        assert!(told.iter().any(|told| told.contains(why)), "{why}\n is not in\n{}", told.join("\n"));
    }
    assert_eq!(told.len(), expected.len(), "{}", told.join("\n"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_loading_panic(catalogue in "\\PC{0,80}", policies in "[a-zA-Z(){}:\"=&;,.@ \\n\\\\?!/*-]{0,120}") {
        let _any = PolicyVersion::load(source(&catalogue, &[]));
        let _any = PolicyVersion::load(source(CATALOGUE, &[&policies]));
    }

    #[test]
    fn one_changed_byte_of_the_example_is_refused_or_loads(at in 0..POLICIES.len(), byte in 0x20_u8..0x7f) {
        let mut text = POLICIES.as_bytes().to_vec();
        text[at] = byte;
        let text = String::from_utf8(text).unwrap();
        if let Ok(version) = PolicyVersion::load(source(CATALOGUE, &[&text])) {
            let _decision = version.decide(&agent(&["analyst"]), &NOON).unwrap();
        }
    }
}

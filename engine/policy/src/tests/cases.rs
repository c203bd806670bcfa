//! Cases: what they expect is what is compared, and what they do not say is not guessed.

use crate::cases::{Cases, CasesReport, Format};
use crate::example::{CATALOGUE, POLICIES, version};

const WHO: &str = r#"
[humans.alice]
id = "local:alice"
roles = ["analyst"]
[humans.bob]
mfa = true
[agents.reporter]
class = "assistant"
roles = ["analyst"]
owner = "alice"
[agents.clerk]
class = "assistant"
roles = ["clerk"]
"#;

const MORE: &str = r#"
@id("register") permit (principal, action == Obol::Action::"register", resource == Obol::AgentClass::"assistant");
@id("approve") permit (principal, action == Obol::Action::"approveCall", resource);
@id("operate") permit (principal, action == Obol::Action::"operate", resource) when { principal.mfa };
"#;

fn run(cases: &str, policies: &[&str]) -> CasesReport {
    Cases::read(&format!("{WHO}{cases}"), Format::Toml).unwrap().run(&version(CATALOGUE, policies))
}

fn problems(cases: &str, policies: &[&str]) -> Vec<String> {
    run(cases, policies).cases.into_iter().flat_map(|case| case.problems).collect()
}

#[test]
fn every_kind_of_case_passes_and_touches_its_policies() {
    let report = run(
        r#"
        [[case]]
        agent = "reporter"
        tool = "query_database"
        expect = "billing-read"
        policies = ["analysts-read", "analysts-unattended"]
        [[case]]
        agent = "clerk"
        tool = "query_database"
        audience = "https://analytics.example"
        expect = "deny"
        policies = []
        [[register]]
        human = "alice"
        class = "assistant"
        flow = "code"
        roles = ["privileged"]
        expect = "deny"
        policies = ["no-code-flow-for-privileged"]
        [[register]]
        human = "alice"
        class = "assistant"
        expect = "allow"
        [[approve]]
        human = "alice"
        agent = "reporter"
        tool = "query_database"
        audience = "https://analytics.example"
        offer = "full"
        expect = "deny"
        policies = ["four-eyes"]
        [[operate]]
        human = "bob"
        verb = "disable"
        expect = "allow"
        policies = ["operate"]
        [[reach]]
        human = "bob"
        organisation = "acme"
        expect = "deny"
        "#,
        &[POLICIES, MORE],
    );
    let failed: Vec<_> = report.cases.iter().filter(|case| !case.passed()).collect();
    assert!(failed.is_empty() && report.cases.len() == 7, "{failed:?}");
    let untouched: Vec<_> = report.untouched.iter().map(AsRef::as_ref).collect();
    assert_eq!(untouched, ["no-unattended-payments", "clones-get-nothing", "approve"]);
}

#[test]
fn what_comes_out_otherwise_is_told() {
    let case = |rest: &str| format!("[[case]]\nagent = \"reporter\"\ntool = \"query_database\"\n{rest}\n");
    let high = CATALOGUE.replace("\"medium\"", "\"high\"");
    let per_call = |rest: &str| {
        let cases = Cases::read(&format!("{WHO}{}", case(rest)), Format::Toml).unwrap();
        cases.run(&version(&high, &[POLICIES])).cases.remove(0).problems
    };
    assert_eq!(per_call("expect = \"deny\"\nper_call = [\"billing-read\"]"), [""; 0]);
    assert_eq!(per_call("expect = \"deny\""), ["expected deny, and it is deny, and per call billing-read"]);

    for (rest, why) in [
        ("expect = \"full\"", "expected full, and it is billing-read"),
        ("expect = \"deny\"", "expected deny, and it is billing-read"),
        (
            "expect = \"billing-read\"\nper_call = [\"full\"]",
            "expected billing-read, and per call full, and it is billing-read",
        ),
        (
            "expect = \"billing-read\"\npolicies = [\"analysts-read\"]",
            "expected analysts-read to decide, and it was analysts-read, analysts-unattended",
        ),
        ("expect = \"billing-read\"\npolicies = []", "expected no policy to decide"),
        (
            "expect = \"billing-read\"\naudience = \"https://other.example\"",
            "no tool \"query_database\" at \"https://other.example\"",
        ),
    ] {
        let problems = problems(&case(rest), &[POLICIES]);
        assert!(problems.len() == 1 && problems[0].contains(why), "{why}\n is not in\n{problems:?}");
    }
    let failing = "@id(\"failing\") forbid (principal, action == Obol::Action::\"use\", resource) when { context.offer.ttl + 9223372036854775807 > 0 };";
    let failed = problems(&case("expect = \"deny\""), &[POLICIES, failing]);
    assert!(
        failed.iter().all(|problem| problem.contains("policy failing failed")) && !failed.is_empty(),
        "{failed:?}"
    );
}

#[test]
fn a_tool_at_two_audiences_must_be_told_apart() {
    let other = CATALOGUE.replace("org = \"example\"", "").replace("analytics.example", "other.example");
    let case = "[[case]]\nagent = \"reporter\"\ntool = \"query_database\"\nexpect = \"billing-read\"\n";
    let cases = Cases::read(&format!("{WHO}{case}"), Format::Toml).unwrap();
    let report = cases.run(&version(&format!("{CATALOGUE}{other}"), &[POLICIES]));
    assert_eq!(report.cases[0].problems, ["tool \"query_database\" is at several audiences; name one"]);
}

#[test]
fn json_says_the_same_as_toml() {
    let toml = "[[case]]\nagent = \"clerk\"\ntool = \"t\"\nexpect = \"deny\"\nnow = 5\nsuite = 1\n";
    let json = r#"{
        "humans": {"alice": {"id": "local:alice", "roles": ["analyst"]}, "bob": {"mfa": true}},
        "agents": {"reporter": {"class": "assistant", "roles": ["analyst"], "owner": "alice"},
                   "clerk": {"class": "assistant", "roles": ["clerk"]}},
        "case": [{"agent": "clerk", "tool": "t", "expect": "deny", "now": 5, "suite": 1}]
    }"#;
    assert_eq!(Cases::read(&format!("{WHO}{toml}"), Format::Toml), Cases::read(json, Format::Json));
}

#[test]
fn a_file_that_is_wrong_is_refused_with_the_place() {
    for (text, why) in [
        (
            "[[case]]\nagent = \"nobody\"\ntool = \"t\"\nexpect = \"deny\"\n",
            "case 1: there is no [agents.nobody]",
        ),
        (
            "[[operate]]\nhuman = \"nobody\"\nverb = \"v\"\nexpect = \"deny\"\n",
            "operate 1: there is no [humans.nobody]",
        ),
        (
            "[[operate]]\nhuman = \"bob\"\nverb = \"v\"\nexpect = \"maybe\"\n",
            "operate 1: expect must be \"allow\" or \"deny\"",
        ),
        ("[agents.x]\nclass = \"c\"\nowner = \"nobody\"\n", "agents.x: there is no [humans.nobody]"),
        ("[agents.x]\nclas = \"c\"\n", "line 15: unknown field `clas`"),
        ("[[case]]\nagent = \"clerk\"\ntool = \"t\"\n", "missing field `expect`"),
    ] {
        let error = Cases::read(&format!("{WHO}{text}"), Format::Toml).unwrap_err().to_string();
        assert!(error.contains(why), "{why}\n is not in\n{error}");
    }
    let twice = Cases::read(r#"{"humans": {}, "humans": {}}"#, Format::Json).unwrap_err().to_string();
    assert!(twice.contains("duplicate field"), "{twice}");
    assert!(Cases::read(&" ".repeat((1 << 20) + 1), Format::Toml).is_err());
}

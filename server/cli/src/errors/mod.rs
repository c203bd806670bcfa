//! `obol errors`: the catalogue of every code with which a process says no, as a page: `docs/errors.md`.
//!
//! Codes, numbers and statuses come from the types that are sent; what they mean and what to do about them stands in
//! [`meanings`]. A test fails where a code has no meaning, or a meaning no code.

mod meanings;
#[cfg(feature = "authority")]
mod service;

use core::fmt::Write as _;
#[cfg(feature = "authority")]
use std::collections::HashSet;

#[cfg(feature = "authority")]
use obol_authority::{Refused, http::ProblemCode};
use obol_ipc::hello::HelloRefusalCode;
use obol_ipc::refusal::ErrorCode;
use obol_resource::{ServiceProblem, http_status};
use obol_verify::{Code, FailedCheck};

use self::meanings::{ATP, CHECKS, DENIALS, EXITS, HELLOS, Meaning, SDKS, SERVICE, SOCKETS};
#[cfg(feature = "authority")]
use self::service::{PROBLEMS, REFUSED};
use crate::exit::{Exit, exit_of};

/// What is before the first table.
const BEGINNING: &str = "\
# Errors

This page lists every code with which a process of Obol refuses, where it appears, and what to do. Codes are stable: programs may depend on them, and on
nothing else in a refusal. The page is generated from the code (`obol errors`); a test compares the two.

";

/// One code as the page shows it.
struct Line {
    /// What a link within the page leads to, where something links.
    anchor: Option<String>,
    code: &'static str,
    /// A number, a status: what else tells it apart.
    more: Vec<String>,
}

/// A table of the page.
struct Section {
    title: &'static str,
    about: &'static str,
    /// The columns before the meaning.
    columns: &'static [&'static str],
    lines: Vec<Line>,
    meanings: &'static [Meaning],
}

/// The page.
pub(crate) fn page() -> String {
    let mut page = String::from(BEGINNING);
    let sections = sections();
    for Section { title, .. } in &sections {
        let place = title.to_lowercase().replace(' ', "-").replace('\'', "");
        let _infallible = writeln!(page, "- [{title}](#{place})");
    }
    for section in sections {
        section.write(&mut page);
    }
    page
}

fn sections() -> Vec<Section> {
    vec![
        exits(),
        sockets(),
        hellos(),
        denials(),
        service(),
        checks(),
        atp(),
        sdks(),
        #[cfg(feature = "authority")]
        authority(),
        #[cfg(feature = "authority")]
        authority_routes(),
    ]
}

fn exits() -> Section {
    let line = |exit: &Exit| Line { anchor: None, code: exit.name(), more: vec![(*exit as u8).to_string()] };
    Section {
        title: "Exit codes of the commands",
        about: "0 is success. With `--json`, a failure is one line on standard error, `{\"error\":{\"code\":…,\"message\":…,\"exit\":…}}`; `code` is \
                the daemon's own code if it has one, and otherwise one of these.",
        columns: &["`code`", "exit"],
        lines: Exit::ALL.iter().map(line).collect(),
        meanings: EXITS,
    }
}

fn sockets() -> Section {
    let line = |code: &ErrorCode| Line {
        anchor: None,
        code: code.name(),
        more: vec![code.number().to_string(), (exit_of(*code) as u8).to_string()],
    };
    Section {
        title: "The local sockets",
        about: "The agent's socket, the authenticator's and the operators' answer with JSON-RPC errors whose `data.code` is one of these. `exit` is the exit code of the \
                refused command.",
        columns: &["`data.code`", "number", "exit"],
        lines: ErrorCode::ALL.iter().map(line).collect(),
        meanings: SOCKETS,
    }
}

fn hellos() -> Section {
    let line = |code: &HelloRefusalCode| Line { anchor: None, code: code.name(), more: Vec::new() };
    Section {
        title: "Refusals of the first frame",
        about: "`error.code` of the first frame with which a local socket turns a client away before it closes.",
        columns: &["`error.code`"],
        lines: HelloRefusalCode::ALL.iter().map(line).collect(),
        meanings: HELLOS,
    }
}

fn denials() -> Section {
    let line = |code: &Code| problem(code.as_str(), http_status(*code).as_u16());
    Section {
        title: "Tokens at a resource server",
        about: "`code` in a problem document (RFC 9457), whose `type` leads here; in a refusal in MCP; in `obol verify --jsonl`; and in the audit log. All names but \
                the last are those of MCP TBAC r41. An opaque server answers `AUTHORIZATION_FAILED` for each code marked so.",
        columns: &["`code`", "HTTP"],
        lines: Code::ALL.iter().map(line).collect(),
        meanings: DENIALS,
    }
}

fn service() -> Section {
    let line = |problem_: &ServiceProblem| problem(problem_.code(), problem_.http_status().as_u16());
    Section {
        title: "The resource server's routes",
        about: "Problem documents that do not concern a token.",
        columns: &["`code`", "HTTP"],
        lines: ServiceProblem::ALL.iter().map(line).collect(),
        meanings: SERVICE,
    }
}

/// A problem's line, which its `type` leads to.
fn problem(code: &'static str, status: u16) -> Line {
    Line { anchor: Some(code.to_ascii_lowercase()), code, more: vec![status.to_string()] }
}

fn checks() -> Section {
    let line = |check: &FailedCheck| Line { anchor: None, code: check.as_str(), more: Vec::new() };
    Section {
        title: "Checks that fail",
        about: "`failed_check` of a refusal: the step that refused. Steps are those of the cascade in MCP TBAC r41, section 6.",
        columns: &["`failed_check`"],
        lines: FailedCheck::ALL.iter().map(line).collect(),
        meanings: CHECKS,
    }
}

fn atp() -> Section {
    let line = |code: &obol_atp::AtpErrorCode| Line {
        anchor: None,
        code: code.as_str(),
        more: vec![code.status().to_string()],
    };
    Section {
        title: "The Agent Token Protocol",
        about: "`error` in answers of `obol atp serve`.",
        columns: &["`error`", "HTTP"],
        lines: obol_atp::AtpErrorCode::ALL.iter().map(line).collect(),
        meanings: ATP,
    }
}

/// A place that a `type` of its part of the page leads to.
fn anchor_in(part: &str, code: &str) -> Option<String> {
    Some(format!("{part}-{}", code.to_ascii_lowercase()))
}

fn sdks() -> Section {
    let codes = obol_agent::Code::ALL.iter().map(|code| code.as_str());
    let line = |code| Line { anchor: anchor_in("sdk", code), code, more: Vec::new() };
    Section {
        title: "The SDKs and the proxy",
        about: "`code` of an SDK's error, the same in every language, and of a problem document from `obol proxy`, whose `type` leads here.",
        columns: &["`code`"],
        lines: codes.chain([obol_proxy::FOREIGN_HOST]).map(line).collect(),
        meanings: SDKS,
    }
}

#[cfg(feature = "authority")]
fn authority() -> Section {
    let in_clear: HashSet<_> = ProblemCode::ALL.iter().map(|code| code.as_str()).collect();
    let mut seen = HashSet::new();
    let codes = Refused::CODES.iter().copied().filter(|code| seen.insert(*code));
    // What is refused in clear under the same name has its place below.
    let anchor = |code| anchor_in("as", code).filter(|_| !in_clear.contains(code));
    Section {
        title: "The Authentication Service",
        about: "`error.code` of an answer inside a handshake; also the beginning of the message of `AUTHORITY_REFUSED`, and of messages to operators.",
        columns: &["`code`"],
        lines: codes.map(|code| Line { anchor: anchor(code), code, more: Vec::new() }).collect(),
        meanings: REFUSED,
    }
}

#[cfg(feature = "authority")]
fn authority_routes() -> Section {
    let line = |code: &ProblemCode| Line {
        anchor: anchor_in("as", code.as_str()),
        code: code.as_str(),
        more: vec![code.http_status().to_string()],
    };
    Section {
        title: "The Authentication Service's routes",
        about: "`code` of a problem document (RFC 9457), whose `type` leads here; `err` in an answer about a stream of events.",
        columns: &["`code`", "HTTP"],
        lines: ProblemCode::ALL.iter().map(line).collect(),
        meanings: PROBLEMS,
    }
}

impl Section {
    fn meaning(&self, line: &Line) -> Option<&Meaning> {
        self.meanings.iter().find(|meaning| {
            meaning.code == line.code
                && (meaning.number.is_none() || meaning.number == line.more.first().map(String::as_str))
        })
    }

    fn write(&self, page: &mut String) {
        let (meaning, advice) = ("means", "do");
        let _infallible = write!(page, "\n## {}\n\n{}\n\n|", self.title, self.about);
        let has_advice = self.meanings.iter().any(|meaning| !meaning.advice.is_empty());
        let columns = self.columns.iter().copied().chain([meaning]).chain(has_advice.then_some(advice));
        let columns: Vec<_> = columns.collect();
        for column in &columns {
            let _infallible = write!(page, " {column} |");
        }
        let _infallible = writeln!(page, "\n|{}", "---|".repeat(columns.len()));
        for line in &self.lines {
            let anchor =
                line.anchor.as_ref().map_or_else(String::new, |anchor| format!("<a id=\"{anchor}\"></a>"));
            let _infallible = write!(page, "| {anchor}`{}` |", line.code);
            for more in &line.more {
                let _infallible = write!(page, " {more} |");
            }
            let told = self.meaning(line);
            let _infallible = write!(page, " {} |", told.map_or("", |told| told.meaning));
            if has_advice {
                let _infallible = write!(page, " {} |", told.map_or("", |told| told.advice));
            }
            page.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_meaning_and_every_meaning_a_code() {
        for section in sections() {
            assert!(!section.lines.is_empty(), "{}", section.title);
            for line in &section.lines {
                let told =
                    section.meaning(line).unwrap_or_else(|| panic!("{}: {}", section.title, line.code));
                assert!(told.meaning.ends_with(['.', '?']), "{}: {}", line.code, told.meaning);
                assert!(!told.meaning.contains('|') && !told.advice.contains('|'), "{}", line.code);
                let wants_advice = section.title != "Checks that fail";
                assert_eq!(told.advice.ends_with(['.', '?']), wants_advice, "{}: {}", line.code, told.advice);
            }
            for meaning in section.meanings {
                let meant = section
                    .lines
                    .iter()
                    .any(|line| section.meaning(line).is_some_and(|told| core::ptr::eq(told, meaning)));
                assert!(meant, "{}: {} is not a code", section.title, meaning.code);
            }
        }
    }

    #[test]
    fn every_type_of_a_problem_leads_to_one_place_of_the_page() {
        let page = page();
        let codes = Code::ALL.iter().map(|code| code.as_str());
        for code in codes.chain(ServiceProblem::ALL.iter().map(|problem| problem.code())) {
            leads_to_one_place(&page, &obol_probe::problem::type_uri(code));
        }
        let sdks = obol_agent::Code::ALL.iter().map(|code| code.as_str()).chain([obol_proxy::FOREIGN_HOST]);
        for code in sdks {
            leads_to_one_place(&page, &obol_probe::problem::type_uri_in("sdk", code));
        }
        #[cfg(feature = "authority")]
        for code in Refused::CODES.iter().copied().chain(ProblemCode::ALL.iter().map(|code| code.as_str())) {
            leads_to_one_place(&page, &obol_probe::problem::type_uri_in("as", code));
        }
    }

    fn leads_to_one_place(page: &str, uri: &str) {
        let (_, anchor) = uri.split_once('#').unwrap();
        assert_eq!(page.matches(&format!("<a id=\"{anchor}\"></a>")).count(), 1, "{uri}");
    }
}

//! The policies of a version: read, validated, each under its `@id`; and those of them that can bear on a question.

pub(crate) mod heads;
pub(crate) mod slices;
mod statements;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use cedar_policy::ffi::DetailedError;
use cedar_policy::{ActionConstraint, EntityUid, Policy, PolicySet, ValidationMode, Validator};

use self::heads::{Marked, Meant};
use self::statements::statements;
use crate::catalogue::Catalogue;
use crate::decision::PolicyId;
use crate::facts::{FactsError, refused};
use crate::limits::{MAX_NAME_BYTES, MAX_POLICIES, MAX_POLICIES_BYTES, MAX_POLICY_FILES};
use crate::party::Party;
use crate::problem::{Lines, LoadError, Problem, Problems};
use crate::reads::Reads;
use crate::vocabulary::{Action, Kind, is_id, schema};

/// What loads policies descends into them. Our own bound on a policy keeps that far below this, also in a debug build.
const STACK_BYTES: usize = 64 << 20;

/// One policy.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) id: PolicyId,
    pub(crate) policy: Policy,
    pub(crate) file: String,
    pub(crate) line: usize,
    pub(crate) action: ActionConstraint,
    pub(crate) principal: Meant,
    pub(crate) resource: Meant,
}

/// All policies of a version, in the order of files and lines.
#[derive(Debug)]
pub(crate) struct Rules {
    rules: Vec<Rule>,
    ids: HashMap<Arc<str>, PolicyId>,
    /// What they read of agents and moments.
    pub(crate) reads: Reads,
    /// What the validator has to say of policies that are valid.
    pub(crate) warnings: Vec<Problem>,
}

impl Rules {
    /// Reads and validates policies by file name.
    pub(crate) fn load(files: &BTreeMap<String, String>, catalogue: &Catalogue) -> Result<Self, LoadError> {
        let bytes: usize = files.values().map(String::len).sum();
        let mut problems = Problems::default();
        if files.len() > MAX_POLICY_FILES {
            problems.add("policies", None, format!("there are more than {MAX_POLICY_FILES} files"));
        }
        if bytes > MAX_POLICIES_BYTES {
            problems.add(
                "policies",
                None,
                format!("they are longer than {MAX_POLICIES_BYTES} bytes together"),
            );
        }
        problems.none_or(())?;
        // Not on the caller's stack, which may be small.
        std::thread::scope(|scope| {
            let load = || Self::load_here(files, catalogue);
            let loader = std::thread::Builder::new().name("policy-load".to_owned()).stack_size(STACK_BYTES);
            let loaded = loader.spawn_scoped(scope, load).map(std::thread::ScopedJoinHandle::join);
            match loaded {
                Ok(Ok(loaded)) => loaded,
                Ok(Err(_panic)) => Err(failed("reading them failed; this is a fault of obol")),
                Err(error) => Err(failed(&format!("no thread to read them with: {error}"))),
            }
        })
    }

    fn load_here(files: &BTreeMap<String, String>, catalogue: &Catalogue) -> Result<Self, LoadError> {
        let mut reader = Reader { problems: Problems::default(), rules: Vec::new(), lines: BTreeMap::new() };
        for (file, text) in files {
            reader.file(file, text);
        }
        if reader.rules.len() > MAX_POLICIES {
            reader.problems.add("policies", None, format!("there are more than {MAX_POLICIES}"));
        }
        let Reader { problems, rules, .. } = reader;
        let rules = problems.none_or(rules)?;
        let warnings = validate(&rules, files)?;
        check_organisations(&rules, catalogue)?;
        let ids = rules.iter().map(|rule| (Arc::clone(&rule.id.0), rule.id.clone())).collect();
        let reads = Reads::of(rules.iter().map(|rule| &rule.policy));
        Ok(Self { rules, ids, reads, warnings })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter()
    }

    /// The name that answers give a policy.
    pub(crate) fn id(&self, id: &cedar_policy::PolicyId) -> PolicyId {
        let name: &str = id.as_ref();
        self.ids.get(name).cloned().unwrap_or_else(|| PolicyId(Arc::from(name)))
    }

    /// The policies that can bear on what this one does.
    pub(crate) fn of_principal(&self, action: Action, principal: &Party) -> Marked {
        let action = action.uid();
        let bears = |rule: &Rule| rule.applies_to(&action) && rule.principal.can_be(principal);
        Marked::of(self.rules.iter().map(bears))
    }

    /// The policies that can bear on what is done to this one.
    pub(crate) fn of_resource(&self, resource: &Party) -> Marked {
        Marked::of(self.rules.iter().map(|rule| rule.resource.can_be(resource)))
    }

    /// These policies alone, to be asked. To leave out what cannot bear on a question costs less than to ask it.
    pub(crate) fn set(&self, marked: &Marked) -> Result<PolicySet, FactsError> {
        let rules = marked.places().filter_map(|place| self.rules.get(place));
        PolicySet::from_policies(rules.map(|rule| rule.policy.clone())).map_err(refused)
    }

    /// All policies, for what must hold without the above.
    #[cfg(test)]
    pub(crate) fn all(&self) -> PolicySet {
        PolicySet::from_policies(self.rules.iter().map(|rule| rule.policy.clone())).unwrap()
    }
}

impl Rule {
    pub(crate) fn applies_to(&self, action: &EntityUid) -> bool {
        match &self.action {
            ActionConstraint::Any => true,
            ActionConstraint::Eq(uid) => uid == action,
            ActionConstraint::In(uids) => uids.contains(action),
        }
    }
}

struct Reader {
    problems: Problems,
    rules: Vec<Rule>,
    /// Where each id was met.
    lines: BTreeMap<String, (String, usize)>,
}

impl Reader {
    fn file(&mut self, file: &str, text: &str) {
        let lines = Lines::of(text);
        let starts = match statements(text) {
            Ok(starts) => starts,
            Err(fault) => return self.problems.add(file, Some(lines.at(fault.at)), fault.why),
        };
        let set: PolicySet = match text.parse() {
            Ok(set) => set,
            Err(errors) => {
                for error in errors.iter() {
                    let (line, message) = told(&lines, &DetailedError::from(error));
                    self.problems.add(file, line, message);
                }
                return;
            }
        };
        if set.templates().next().is_some() {
            let why = "it has a template, with ?principal or ?resource; nothing would fill it in";
            self.problems.add(file, None, why);
        }
        let mut policies: Vec<_> = set.policies().map(|policy| (number(policy), policy)).collect();
        policies.sort_by_key(|(number, _)| *number);
        for (number, policy) in policies {
            let line = lines.at(starts.get(number).copied().unwrap_or_default());
            self.policy(file, line, policy);
        }
    }

    fn policy(&mut self, file: &str, line: usize, policy: &Policy) {
        let Some(id) = policy.annotation("id") else {
            let why = "this policy has no name; put @id(\"…\") before it, decisions are told by it";
            return self.problems.add(file, Some(line), why);
        };
        if !is_id(id, MAX_NAME_BYTES) {
            let why = format!("the @id must be 1 to {MAX_NAME_BYTES} bytes without control characters");
            return self.problems.add(file, Some(line), why);
        }
        if let Some((first, at)) = self.lines.insert(id.to_owned(), (file.to_owned(), line)) {
            let why =
                format!("@id({id:?}) is taken, in {first}, line {at}; each policy needs a name of its own");
            return self.problems.add(file, Some(line), why);
        }
        self.rules.push(Rule {
            id: PolicyId(Arc::from(id)),
            policy: policy.new_id(cedar_policy::PolicyId::new(id)),
            file: file.to_owned(),
            line,
            action: policy.action_constraint(),
            principal: policy.principal_constraint().into(),
            resource: policy.resource_constraint().into(),
        });
    }
}

/// Cedar's own name for a policy of a text is `policy` and its number.
fn number(policy: &Policy) -> usize {
    let id: &str = policy.id().as_ref();
    id.strip_prefix("policy").and_then(|number| number.parse().ok()).unwrap_or(usize::MAX)
}

/// Holds the policies to the schema. What the validator only warns of is handed back.
fn validate(rules: &[Rule], files: &BTreeMap<String, String>) -> Result<Vec<Problem>, LoadError> {
    let mut problems = Problems::default();
    let set = match PolicySet::from_policies(rules.iter().map(|rule| rule.policy.clone())) {
        Ok(set) => set,
        Err(error) => return Err(failed(&error.to_string())),
    };
    let result = Validator::new(schema().clone()).validate(&set, ValidationMode::Strict);
    let lines: BTreeMap<_, _> = files.iter().map(|(name, text)| (name.as_str(), Lines::of(text))).collect();
    let rules: HashMap<&str, &Rule> = rules.iter().map(|rule| (rule.id.as_ref(), rule)).collect();
    let problem = |id: &cedar_policy::PolicyId, error: &DetailedError| {
        let rule = rules.get(AsRef::<str>::as_ref(id));
        let Some((rule, lines)) = rule.and_then(|rule| Some((rule, lines.get(rule.file.as_str())?))) else {
            return (String::from("policies"), None, error.message.clone());
        };
        let (line, message) = told(lines, error);
        // Cedar begins with "for policy `…`, ", which is said already.
        let message = message.strip_prefix(&format!("for policy `{id}`, ")).unwrap_or(&message).to_owned();
        (rule.file.clone(), line.or(Some(rule.line)), format!("policy {id}: {message}"))
    };
    for error in result.validation_errors() {
        let (file, line, message) = problem(error.policy_id(), &DetailedError::from(error));
        problems.add(&file, line, message);
    }
    if !result.validation_passed() && problems.is_empty() {
        return Err(failed("the validator refuses them and does not say why"));
    }
    let warnings = result.validation_warnings().map(|warning| {
        let (file, line, message) = problem(warning.policy_id(), &DetailedError::from(warning));
        Problem { file, line, message }
    });
    let mut warnings: Vec<_> = warnings.collect();
    warnings.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    problems.none_or(warnings)
}

/// A policy about an organisation that is not the catalogue's would never apply; if it forbids, that must not pass.
fn check_organisations(rules: &[Rule], catalogue: &Catalogue) -> Result<(), LoadError> {
    let mut problems = Problems::default();
    for rule in rules {
        for literal in rule.policy.entity_literals() {
            let named = literal.id().unescaped();
            if Kind::of(literal.type_name()) == Some(Kind::Org) && catalogue.org() != Some(named) {
                let why = match catalogue.org() {
                    Some(org) => format!("the catalogue's organisation is {org:?}"),
                    None => format!("the catalogue names none; put `org = {named:?}` at its head"),
                };
                let message =
                    format!("policy {}: it speaks of the organisation {named:?}, but {why}", rule.id);
                problems.add(&rule.file, Some(rule.line), message);
            }
        }
    }
    problems.none_or(())
}

fn failed(why: &str) -> LoadError {
    let mut problems = Problems::default();
    problems.add("policies", None, why);
    problems.into_error()
}

/// An error of Cedar in one line, with its place.
fn told(lines: &Lines, error: &DetailedError) -> (Option<usize>, String) {
    let label = error.source_locations.first();
    let line = label.map(|label| lines.at(label.loc.start));
    let mut message = error.message.clone();
    let hint = label.and_then(|label| label.label.clone()).into_iter().chain(error.help.clone());
    for part in hint.filter(|part| !part.is_empty()) {
        message.push_str("; ");
        message.push_str(&part);
    }
    (line, message.split_whitespace().collect::<Vec<_>>().join(" "))
}

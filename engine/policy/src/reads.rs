//! What the policies of a version read of the agent and of the moment. Two agents that are alike in all of it get the same
//! answers, so an answer is kept under that and nothing more.
//!
//! Whatever is not understood here counts as read. Class and roles always do.

use cedar_policy::pst::{BinaryOp, Clause, EntityOrSlot, EntityUID, Expr, Literal, PrincipalConstraint, Var};
use cedar_policy::{EntityTypeName, Policy};
use sha2::{Digest, Sha256};

use crate::facts::{AgentFacts, Occasion};
use crate::source::PolicyDigest;
use crate::vocabulary::Kind;

/// The facts that decide.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Reads {
    agent: bool,
    owner: bool,
    flow: bool,
    registered_days: bool,
    clone_suspected: bool,
    tags: bool,
    suite: bool,
    /// The time, or how long ago something was: the answer may be another one a second later.
    time: bool,
}

impl Reads {
    const EVERYTHING: Self = Self {
        agent: true,
        owner: true,
        flow: true,
        registered_days: true,
        clone_suspected: true,
        tags: true,
        suite: true,
        time: true,
    };

    /// What these policies read, all together.
    pub(crate) fn of<'a>(policies: impl Iterator<Item = &'a Policy>) -> Self {
        let mut reads = Self::default();
        for policy in policies {
            match policy.to_pst() {
                Ok(tree) => {
                    let body = tree.body();
                    reads.principal(&body.principal);
                    for clause in body.clauses() {
                        let (Clause::When(condition) | Clause::Unless(condition)) = clause;
                        reads.expression(condition);
                    }
                }
                Err(_) => reads = Self::EVERYTHING,
            }
        }
        reads
    }

    /// What an answer is kept under; `None` where it cannot be kept.
    pub(crate) fn key(
        self,
        version: PolicyDigest,
        agent: &AgentFacts,
        moment: &Occasion,
    ) -> Option<[u8; 32]> {
        if self.time {
            return None;
        }
        let mut key = Key(Sha256::new());
        key.part(&version.0);
        key.part(agent.class.as_bytes());
        key.parts(agent.roles.iter());
        key.part_if(self.agent, agent.id.as_bytes());
        key.part_if(self.owner, agent.owner.id.as_bytes());
        key.part_if(self.owner, agent.owner.issuer.as_bytes());
        key.part_if(self.owner, agent.owner.organisation.as_bytes());
        key.part_if(self.owner, &[u8::from(agent.owner.mfa)]);
        key.parts(agent.owner.roles.iter().filter(|_| self.owner));
        key.part_if(self.flow, agent.flow.as_bytes());
        key.part_if(self.registered_days, &agent.registered_days.to_be_bytes());
        key.part_if(self.clone_suspected, &[u8::from(agent.clone_suspected)]);
        key.parts(agent.tags.iter().filter(|_| self.tags));
        key.part_if(self.suite, &[moment.suite]);
        Some(key.0.finalize().into())
    }

    fn principal(&mut self, constraint: &PrincipalConstraint) {
        match constraint {
            PrincipalConstraint::Any | PrincipalConstraint::Is(_) => {}
            PrincipalConstraint::Eq(EntityOrSlot::Entity(uid))
            | PrincipalConstraint::In(EntityOrSlot::Entity(uid))
            | PrincipalConstraint::IsIn(_, EntityOrSlot::Entity(uid)) => self.literal(uid),
            _ => *self = Self::EVERYTHING,
        }
    }

    fn expression(&mut self, expression: &Expr) {
        match expression {
            Expr::Literal(Literal::EntityUID(uid)) => self.literal(uid),
            Expr::Literal(_) => {}
            Expr::Var(_) | Expr::GetAttr { .. } => self.path(expression, Vec::new()),
            Expr::HasAttr { expr, attrs } => self.path(expr, attrs.iter().rev().map(AsRef::as_ref).collect()),
            Expr::UnaryOp { expr, .. } | Expr::Like { expr, .. } => self.expression(expr),
            Expr::BinaryOp { op: BinaryOp::In, left, right } => self.is_in(left, right),
            Expr::BinaryOp { left, right, .. } => {
                self.expression(left);
                self.expression(right);
            }
            // Of what type the principal is does not change.
            Expr::Is { expr, in_expr: None, .. } if is_principal(expr) => {}
            Expr::Is { expr, in_expr: None, .. } => self.expression(expr),
            Expr::Is { expr, in_expr: Some(group), .. } => self.is_in(expr, group),
            Expr::IfThenElse { cond, then_expr, else_expr } => {
                [cond, then_expr, else_expr].into_iter().for_each(|part| self.expression(part));
            }
            Expr::Set(parts) => parts.iter().for_each(|part| self.expression(part)),
            Expr::Record(parts) => parts.values().for_each(|part| self.expression(part)),
            _ => *self = Self::EVERYTHING,
        }
    }

    /// `x in y`. A principal's class and roles are part of every key.
    fn is_in(&mut self, member: &Expr, group: &Expr) {
        if !(is_principal(member) && names_groups(group)) {
            self.expression(member);
            self.expression(group);
        }
    }

    /// `x.a.b`. Behind `x` stand, last first, the attributes that were met outside.
    fn path<'a>(&mut self, expression: &'a Expr, mut outer: Vec<&'a str>) {
        match expression {
            Expr::GetAttr { expr, attr } => {
                outer.push(attr);
                self.path(expr, outer);
            }
            Expr::Var(variable) => {
                outer.reverse();
                self.variable(variable, &outer);
            }
            other => self.expression(other),
        }
    }

    fn variable(&mut self, variable: &Var, attributes: &[&str]) {
        match (variable, attributes) {
            // What is asked about tool and offer is the version's own.
            (Var::Action | Var::Resource, _) | (Var::Context, ["offer", ..]) => {}
            (Var::Principal, ["owner", ..]) => self.owner = true,
            (Var::Principal, ["flow", ..]) => self.flow = true,
            (Var::Principal, ["registered_days", ..]) => self.registered_days = true,
            (Var::Principal, ["clone_suspected", ..]) => self.clone_suspected = true,
            (Var::Principal, ["tags", ..]) => self.tags = true,
            (Var::Context, ["moment", "suite", ..]) => self.suite = true,
            (Var::Context, ["moment", "now" | "owner_auth_age_sec", ..]) => self.time = true,
            _ => *self = Self::EVERYTHING,
        }
    }

    fn literal(&mut self, uid: &EntityUID) {
        match kind(uid) {
            // Whether it is there, and what it says, depends on who asks.
            Some(Kind::Agent) => *self = Self { time: self.time, suite: self.suite, ..Self::EVERYTHING },
            Some(Kind::Human) => self.owner = true,
            Some(_) => {}
            None => *self = Self::EVERYTHING,
        }
    }
}

fn is_principal(expression: &Expr) -> bool {
    matches!(expression, Expr::Var(Var::Principal))
}

fn names_groups(expression: &Expr) -> bool {
    match expression {
        Expr::Literal(Literal::EntityUID(uid)) => matches!(kind(uid), Some(Kind::Role | Kind::AgentClass)),
        Expr::Set(parts) => parts.iter().all(|part| names_groups(part)),
        _ => false,
    }
}

fn kind(uid: &EntityUID) -> Option<Kind> {
    uid.ty.to_string().parse::<EntityTypeName>().ok().as_ref().and_then(Kind::of)
}

/// Each part with its length before it; what is not read is told from what is empty.
struct Key(Sha256);

impl Key {
    fn part(&mut self, part: &[u8]) {
        self.0.update((part.len() as u64).to_be_bytes());
        self.0.update(part);
    }

    fn parts<'a>(&mut self, parts: impl Iterator<Item = &'a String> + Clone) {
        self.0.update((parts.clone().count() as u64).to_be_bytes());
        parts.for_each(|part| self.part(part.as_bytes()));
    }

    fn part_if(&mut self, is_read: bool, part: &[u8]) {
        self.0.update([u8::from(is_read)]);
        if is_read {
            self.part(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads(condition: &str) -> Reads {
        let text =
            format!("permit (principal, action == Obol::Action::\"use\", resource) when {{ {condition} }};");
        Reads::of([text.parse().unwrap()].iter())
    }

    fn reads_scope(scope: &str) -> Reads {
        Reads::of([format!("permit ({scope}, action, resource);").parse().unwrap()].iter())
    }

    #[test]
    fn what_is_read_is_seen_and_nothing_else() {
        let nothing = Reads::default();
        for (condition, expected) in [
            ("true", nothing),
            ("context.offer.actions == [\"read\"] && context.offer has max_rows", nothing),
            ("resource.risk == \"high\" && resource in Obol::ToolSet::\"db\"", nothing),
            ("principal in Obol::Role::\"a\" || principal in [Obol::AgentClass::\"b\"]", nothing),
            ("principal is Obol::Agent in Obol::Role::\"a\"", nothing),
            ("principal is Obol::Agent", nothing),
            ("principal.owner.mfa", Reads { owner: true, ..nothing }),
            ("principal.owner.organisation == \"a\"", Reads { owner: true, ..nothing }),
            ("principal has owner.mfa", Reads { owner: true, ..nothing }),
            ("principal.owner in Obol::Role::\"a\"", Reads { owner: true, ..nothing }),
            ("principal.owner == Obol::Human::\"a\"", Reads { owner: true, ..nothing }),
            ("Obol::Human::\"a\".mfa", Reads { owner: true, ..nothing }),
            ("principal.flow like \"c*\"", Reads { flow: true, ..nothing }),
            ("principal.registered_days > 3", Reads { registered_days: true, ..nothing }),
            (
                "principal has clone_suspected && principal.clone_suspected",
                Reads { clone_suspected: true, ..nothing },
            ),
            ("principal[\"clone_suspected\"]", Reads { clone_suspected: true, ..nothing }),
            ("principal.tags.contains(\"x\")", Reads { tags: true, ..nothing }),
            ("context.moment.suite == 4", Reads { suite: true, ..nothing }),
            (
                "if context.moment.owner_auth_age_sec < 300 then true else false",
                Reads { time: true, ..nothing },
            ),
            ("context.moment.now.toTime() > duration(\"9h\")", Reads { time: true, ..nothing }),
            ("[principal.flow].contains(\"a\")", Reads { flow: true, ..nothing }),
            ("{a: principal.flow}.a == \"b\"", Reads { flow: true, ..nothing }),
        ] {
            assert_eq!(reads(condition), expected, "{condition}");
        }
    }

    #[test]
    fn what_is_not_understood_counts_as_read() {
        for condition in [
            "principal == principal",
            "principal in principal",
            "[principal].contains(principal)",
            "context.moment == context.moment",
            "context == context",
            "context has other",
            "principal.other == 1",
            "Other::\"a\" == Other::\"b\"",
        ] {
            assert!(reads(condition).time, "{condition}");
        }
        assert!(reads("Obol::Agent::\"a\".flow == \"code\"").agent);
        assert!(reads("principal == Obol::Agent::\"a\"").agent);
        assert!(reads_scope("principal == Obol::Agent::\"a\"").agent);
        assert_eq!(reads_scope("principal in Obol::Role::\"a\""), Reads::default());
    }
}

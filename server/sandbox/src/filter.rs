//! The table of closed calls as programs for the kernel.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, sock_filter,
};

use crate::calls::{ClosedCall, Then, When};

/// Where the call's number is in what a program sees, and how programs read, compare and answer (`linux/filter.h`,
/// `linux/seccomp.h`).
const NUMBER_AT: u32 = 0;
const LOAD_WORD: u16 = 0x20;
const JUMP_IF_GREATER_OR_EQUAL: u16 = 0x35;
const ANSWER: u16 = 0x06;
const KILL_PROCESS: u32 = 0x8000_0000;
const ALLOW: u32 = 0x7fff_0000;
/// Numbers from here on are the 32-bit way to make a call on x86-64 (x32), past every filter that goes by numbers.
const X32: u32 = 0x4000_0000;

/// One program for each thing that can become of a call.
pub(crate) fn programs(closed: &[ClosedCall]) -> Result<Vec<BpfProgram>, BackendError> {
    let mut programs = vec![other_numbers()];
    for then in [Then::Fails, Then::IsUnknown, Then::Dies] {
        let mut calls: BTreeMap<_, Vec<SeccompRule>> = BTreeMap::new();
        let mut lines: Vec<_> = closed.iter().filter(|call| call.then == then).collect();
        // A call without a rule is closed in all its uses, and so it must stay if another line has rules for some.
        lines.sort_by_key(|call| is_unconditional(&call.when));
        for call in lines {
            let rules = rules(&call.when)?;
            let known = calls.entry(call.number).or_default();
            if rules.is_empty() { known.clear() } else { known.extend(rules) }
        }
        let machine = std::env::consts::ARCH.try_into()?;
        let filter = SeccompFilter::new(calls, SeccompAction::Allow, action(then), machine)?;
        programs.push(filter.try_into()?);
    }
    Ok(programs)
}

fn action(then: Then) -> SeccompAction {
    match then {
        Then::Dies => SeccompAction::KillProcess,
        Then::Fails => SeccompAction::Errno(libc::EPERM.cast_unsigned()),
        Then::IsUnknown => SeccompAction::Errno(libc::ENOSYS.cast_unsigned()),
    }
}

fn is_unconditional(when: &When) -> bool {
    matches!(when, When::Always) || matches!(when, When::NoneOf(_, values) if values.is_empty())
}

/// Rules of which one has to hold. None at all means that all uses are closed.
fn rules(when: &When) -> Result<Vec<SeccompRule>, BackendError> {
    use SeccompCmpArgLen::{Dword, Qword};
    let rule = |conditions: Vec<SeccompCondition>| SeccompRule::new(conditions);
    let one = |argument, length, operator, value| {
        SeccompCondition::new(argument, length, operator, value).and_then(|condition| rule(vec![condition]))
    };
    match when {
        When::Always => Ok(Vec::new()),
        When::NoneOf(_, values) if values.is_empty() => Ok(Vec::new()),
        When::AnyBit(argument, bits) => {
            bits.iter().map(|bit| one(*argument, Qword, SeccompCmpOp::MaskedEq(*bit), *bit)).collect()
        }
        When::WithoutBit(argument, bit) => Ok(vec![one(*argument, Qword, SeccompCmpOp::MaskedEq(*bit), 0)?]),
        When::NoneOf(argument, values) => {
            let other = |value: &u64| SeccompCondition::new(*argument, Dword, SeccompCmpOp::Ne, *value);
            Ok(vec![rule(values.iter().map(other).collect::<Result<_, _>>()?)?])
        }
        When::OneOf(argument, mask, values) => {
            values.iter().map(|value| one(*argument, Dword, SeccompCmpOp::MaskedEq(*mask), *value)).collect()
        }
        When::Given(argument) => Ok(vec![one(*argument, Qword, SeccompCmpOp::Ne, 0)?]),
    }
}

/// Ends who makes calls by numbers that the table does not have.
fn other_numbers() -> BpfProgram {
    let step = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    vec![
        step(LOAD_WORD, 0, 0, NUMBER_AT),
        step(JUMP_IF_GREATER_OR_EQUAL, 0, 1, X32),
        step(ANSWER, 0, 0, KILL_PROCESS),
        step(ANSWER, 0, 0, ALLOW),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::{Needs, closed};

    #[test]
    fn the_programs_compile_on_this_machine_whatever_is_needed() {
        let all = Needs { unix_sockets: true, tcp_sockets: true, connect: true, names: true, signals: true };
        for needs in [Needs::default(), all] {
            let programs = programs(&closed(needs)).unwrap();
            assert_eq!(programs.len(), 4);
            assert!(programs.iter().all(|program| !program.is_empty()));
        }
    }
}

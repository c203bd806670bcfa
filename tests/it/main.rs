//! Tests that cross crates: known answers, whole processes, crashes, attackers. One binary, one module each.

mod known_answers;

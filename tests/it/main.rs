//! Tests that cross crates: known answers, whole processes, crashes, attackers. One binary, one module each.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::needless_pass_by_value,
    reason = "a test that cannot go on fails by panicking, and says on screen what it skipped"
)]

mod atp_agent;
mod atp_node;
mod atp_replicas;
mod atp_serve;
mod audit;
mod audit_denials;
mod audit_full;
mod cascade;
mod channel;
mod cli;
mod companions;
mod config_check;
mod crash_table;
mod cut_off;
mod dev;
mod end_to_end;
mod fair_shares;
mod file_limit;
mod forged_tokens;
mod grants;
mod growth;
mod handshake;
mod hostile_text;
mod incident;
mod install;
mod ipc_vectors;
mod jsonl;
mod kills;
mod known_answers;
mod manual;
mod map;
mod mcp;
mod metrics;
mod model;
mod opened_tokens;
mod own_suites;
mod policy;
mod power_loss;
mod private_files;
mod promises;
mod proofs;
mod proxies;
mod queue;
mod raw_scan;
mod readme;
mod renewal;
mod replicas;
mod resource;
mod revocation;
mod rs_audit;
mod rs_templates;
mod running;
mod sandbox_deeds;
mod scope_rules;
mod sealed_calls;
mod server_contract;
mod session_end;
mod session_folders;
mod shared_sessions;
mod shared_spent_set;
mod sidecar;
mod sidecar_canary;
mod sidecar_hardening;
mod sidecar_life;
mod sidecar_peers;
mod sidecar_watch;
mod slow_disk;
mod spent_set;
mod strangers_bodies;
mod strictness;
mod tidy;
mod two_users;
mod unread_log;
mod watch;

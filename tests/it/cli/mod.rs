//! The binary `obol`: its commands, its settings, and what it prints.

mod certificate_authorities;
mod commands;
mod config_check;
mod dev;
mod hostile_text;
pub(crate) mod install;
mod install_servers;
mod jsonl;
mod policy;
mod private_files;
mod watch;

use std::path::Path;
use std::process::Output;

use obol_world::home::command;

pub(crate) fn run(home: &Path, arguments: &[&str]) -> Output {
    command(home).args(arguments).output().unwrap()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

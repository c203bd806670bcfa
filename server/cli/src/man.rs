//! `obol man`: a manual page for each command that people see, made from the command line's own description.

use std::path::Path;

use clap::CommandFactory as _;
use clap_mangen::Man;

use crate::exit::{Failure, Outcome};
use crate::output;
use crate::settings::args::Cli;

/// Where `obol install` puts pages, beside the program: `man` looks there.
pub(crate) const FOLDER: &str = "/usr/local/share/man/man1";

/// A page: its file's name, and what it says, in roff.
pub(crate) struct Page {
    pub(crate) name: String,
    pub(crate) text: Vec<u8>,
}

/// All pages, the one of `obol` first.
pub(crate) fn pages() -> Vec<Page> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    collect(&command, &mut pages);
    pages
}

fn collect(command: &clap::Command, pages: &mut Vec<Page>) {
    let man = Man::new(command.clone()).manual("Obol");
    let mut text = Vec::new();
    // Memory takes everything.
    let _written = man.render(&mut text);
    pages.push(Page { name: man.get_filename(), text });
    command
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
        .for_each(|command| collect(command, pages));
}

/// `obol man`.
pub(crate) fn run(folder: Option<&Path>) -> Outcome {
    let pages = pages();
    let Some(folder) = folder else {
        if let Some(first) = pages.first() {
            output::line(String::from_utf8_lossy(&first.text).trim_end());
        }
        return Ok(());
    };
    write(folder, &pages).map_err(|error| {
        Failure::usage(format_args!("cannot write manual pages into {}: {error}", folder.display()))
    })?;
    output::line(&format!("{} pages in {}", pages.len(), folder.display()));
    Ok(())
}

fn write(folder: &Path, pages: &[Page]) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    pages.iter().try_for_each(|page| std::fs::write(folder.join(&page.name), &page.text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_that_people_see_has_a_page_and_no_other() {
        fn names(command: &clap::Command, path: &str, found: &mut Vec<String>) {
            found.push(format!("{path}.1"));
            for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
                names(inner, &format!("{path}-{}", inner.get_name()), found);
            }
        }
        let mut wanted = Vec::new();
        names(&Cli::command(), "obol", &mut wanted);
        let pages = pages();
        let found: Vec<_> = pages.iter().map(|page| page.name.clone()).collect();
        assert_eq!(found, wanted);
        assert!(found.len() > 30 && found.contains(&"obol-rs-revoke.1".to_owned()), "{found:?}");
        assert!(!found.contains(&"obol-errors.1".to_owned()), "it is hidden");
        for page in &pages {
            let text = str::from_utf8(&page.text).unwrap();
            assert!(text.contains(".TH ") && text.contains(".SH NAME"), "{}", page.name);
            assert!(!text.contains("end-with-parent"), "{}: it is hidden", page.name);
        }
    }
}

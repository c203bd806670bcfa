//! `obol demo`: the whole way of a token on this machine, from a human's yes to its end, told line by line.
//!
//! Real parts: the Authentication Service, the authenticator and the sidecar, which is killed and restarted, are processes of
//! their own; the resource server listens on loopback; all keep redb files in a folder that is gone afterwards. Every line
//! says what should happen and what did; the exit code is 0 only if all of them came out as they should.

mod authority;
mod home;
mod http;
mod report;
mod server;
mod sidecar;
mod story;

use self::report::Report;
use crate::exit::{Exit, Failure, Outcome};
use crate::settings::args::Output;

/// Tells the story and prints it.
pub(crate) fn run(output: Output) -> Outcome {
    let mut report = Report::new(!output.json);
    // An error that is not part of the story ends it; what was told so far is printed all the same.
    let told = story::tell(&mut report);
    report.finish(output);
    told?;
    if report.all_as_expected() {
        Ok(())
    } else {
        Err(Failure::new(Exit::Other, "some results were wrong; see the lines marked NO"))
    }
}

//! Numbers that every server shows, in the text format of Prometheus.
//!
//! No label holds what somebody sent: labels are fixed names, so nobody's requests blow up somebody's monitoring.

use core::fmt::Write as _;

/// The commit that this was built from, where the build says so in `OBOL_COMMIT`.
const COMMIT: Option<&str> = option_env!("OBOL_COMMIT");

/// What kind of number this is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// One that goes up and down.
    Gauge,
    /// One that only grows.
    Counter,
}

/// Writes what a number means, before its values.
pub fn heading(out: &mut String, name: &str, kind: Kind, help: &str) {
    let kind = match kind {
        Kind::Gauge => "gauge",
        Kind::Counter => "counter",
    };
    let _infallible = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// Writes a number that has no labels, with its heading.
pub fn number(out: &mut String, name: &str, kind: Kind, help: &str, value: u64) {
    heading(out, name, kind, help);
    let _infallible = writeln!(out, "{name} {value}");
}

/// Which build this is.
pub fn build_info(out: &mut String) {
    const NAME: &str = "obol_build_info";
    heading(out, NAME, Kind::Gauge, "Which build this is; always 1.");
    let commit = COMMIT.map(|commit| format!(",commit=\"{commit}\"")).unwrap_or_default();
    let _infallible = writeln!(out, "{NAME}{{version=\"{}\"{commit}}} 1", env!("CARGO_PKG_VERSION"));
}

/// How an audit log is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Audit {
    /// Whether what must be in it is refused at the moment.
    pub is_suspended: bool,
    /// What was refused since the start because it could not be written down.
    pub refused: u64,
    /// Other lines that were given up since the start.
    pub dropped: u64,
}

/// How the audit log is, where there is one.
pub fn audit(out: &mut String, log: Option<Audit>) {
    const STATE: &str = "obol_audit_state";
    heading(
        out,
        STATE,
        Kind::Gauge,
        "Whether the audit log is off, written, or suspended: one of them is 1.",
    );
    let now = match log {
        None => "off",
        Some(Audit { is_suspended: true, .. }) => "suspended",
        Some(_) => "writing",
    };
    for state in ["off", "writing", "suspended"] {
        let _infallible = writeln!(out, "{STATE}{{state=\"{state}\"}} {}", u8::from(state == now));
    }
    let Some(log) = log else { return };
    let refused = "Requests refused because they could not be written into the audit log.";
    number(out, "obol_audit_refused_total", Kind::Counter, refused, log.refused);
    let dropped = "Lines of the audit log that were given up because too many waited.";
    number(out, "obol_audit_dropped_total", Kind::Counter, dropped, log.dropped);
}

/// Whether the server is ready, and if not, for which of its `reasons`; `/readyz` says the same.
pub fn readiness(out: &mut String, help: &str, reasons: &[&str], reason: Option<&str>) {
    const NOT_READY: &str = "obol_not_ready";
    number(out, "obol_ready", Kind::Gauge, help, u64::from(reason.is_none()));
    heading(out, NOT_READY, Kind::Gauge, "Why /readyz says no: the reason is 1, all others are 0.");
    for known in reasons {
        let is_it = reason == Some(known);
        let _infallible = writeln!(out, "{NOT_READY}{{reason=\"{known}\"}} {}", u8::from(is_it));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_state_and_one_reason_hold_at_a_time() {
        for (log, state) in [
            (None, "off"),
            (Some(Audit::default()), "writing"),
            (Some(Audit { is_suspended: true, refused: 3, dropped: 4 }), "suspended"),
        ] {
            let mut out = String::new();
            audit(&mut out, log);
            assert!(out.contains(&format!("obol_audit_state{{state=\"{state}\"}} 1\n")), "{out}");
            assert_eq!(out.matches("\"} 1\n").count(), 1, "{out}");
            assert_eq!(out.contains("obol_audit_refused_total 3\n"), state == "suspended", "{out}");
        }
        let reasons = ["store", "session"];
        for (reason, ready) in [(None, 1), (Some("store"), 0), (Some("session"), 0)] {
            let mut out = String::new();
            readiness(&mut out, "Whether.", &reasons, reason);
            assert!(out.contains(&format!("\nobol_ready {ready}\n")), "{out}");
            assert_eq!(out.matches("\"} 1\n").count(), 1 - ready, "{out}");
        }
    }

    #[test]
    fn the_build_is_named() {
        let mut out = String::new();
        build_info(&mut out);
        assert!(
            out.contains(concat!("obol_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"")),
            "{out}"
        );
        assert!(out.ends_with("} 1\n"), "{out}");
    }
}

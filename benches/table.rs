//! Prints what the benchmarks recorded, and what the machine is like. `scripts/bench` calls it.
//!
//! `bench-table machine`: processor, cores, kernel, how busy the machine is with other things, and what a small durable
//! write takes. `bench-table`: the table.

#![expect(clippy::print_stdout, reason = "printing is what this program is for")]

use core::fmt::Write as _;
use core::time::Duration;
use std::io::{Seek, Write as _};
use std::process::ExitCode;
use std::time::Instant;

use obol_benches::load;
use obol_benches::rows::{self, Row, Target, Unit};

/// A row measured while others used more than this share of the machine is marked: it says little.
const LOUD: f64 = 0.05;
/// How long the machine is listened to.
const LISTEN: Duration = Duration::from_secs(2);
/// Durable writes timed to tell how fast the disk is.
const WRITES: usize = 200;

fn main() -> ExitCode {
    let outcome = match std::env::args().nth(1).as_deref() {
        Some("machine") => machine(),
        None => table(),
        Some(other) => Err(format!("unknown argument {other:?}; give none, or: machine")),
    };
    match outcome {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("bench-table: {error}");
            ExitCode::FAILURE
        }
    }
}

fn machine() -> Result<String, String> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown processor");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let busy = load::during(LISTEN);
    let sync = durable_write().map_err(|error| format!("cannot time a durable write: {error}"))?;
    let mut text = format!(
        "{}; {cores} cores; Linux {}; others use {:.0} % of it; 4 KiB write + fdatasync {:.0} µs (median)",
        model.trim_start_matches([' ', '\t', ':']),
        kernel.trim(),
        busy * 100.0,
        sync.as_secs_f64() * 1e6,
    );
    if busy > LOUD {
        text.push_str(
            "\nLOUD: other programs are using this machine; the numbers below are not to be quoted",
        );
    }
    Ok(text)
}

fn durable_write() -> std::io::Result<Duration> {
    let mut file = tempfile::tempfile()?;
    let mut times = Vec::with_capacity(WRITES);
    for _ in 0..WRITES {
        let start = Instant::now();
        file.rewind()?;
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    Ok(times.get(WRITES / 2).copied().unwrap_or_default())
}

fn table() -> Result<String, String> {
    let path = rows::path();
    let text = std::fs::read_to_string(&path)
        .map_err(|error| format!("no results in {}: {error}; run scripts/bench", path.display()))?;
    let rows: Vec<Row> = text
        .lines()
        .map(|line| {
            serde_json::from_str(line).map_err(|error| format!("{}: {error}: {line}", path.display()))
        })
        .collect::<Result<_, _>>()?;
    let mut out =
        String::from("| what | measured | peer | ratio | target | met |\n|---|---|---|---|---|---|\n");
    for row in &rows {
        let _infallible = writeln!(
            out,
            "| {}: {} | {} | {} | {} | {} | {}{} |",
            row.bench,
            row.what,
            amount(row.measured, row.unit),
            peer(row),
            row.ratio().map_or_else(String::new, |ratio| format!("{ratio:.2}")),
            row.target.map_or_else(String::new, |target| wanted(target, row.unit)),
            row.is_met().map_or("", |met| if met { "yes" } else { "NO" }),
            if row.foreign_load > LOUD { " (loud)" } else { "" },
        );
    }
    let missed = rows.iter().filter(|row| row.is_met() == Some(false)).count();
    let held = rows.iter().filter(|row| row.is_met().is_some()).count();
    let _infallible = write!(out, "\n{} of {held} targets met.", held - missed);
    if let Some(loudest) =
        rows.iter().map(|row| row.foreign_load).filter(|load| *load > LOUD).reduce(f64::max)
    {
        let _infallible = write!(
            out,
            " Rows marked loud were measured while others used up to {:.0} % of the machine; measure again.",
            loudest * 100.0
        );
    }
    Ok(out)
}

fn peer(row: &Row) -> String {
    match (&row.peer, row.peer_measured) {
        (Some(peer), Some(measured)) => format!("{peer}: {}", amount(measured, row.unit)),
        (Some(peer), None) => peer.clone(),
        _ => String::new(),
    }
}

fn wanted(target: Target, unit: Unit) -> String {
    match target {
        Target::RatioAtMost(most) => format!("≤ {most} × peer"),
        Target::RatioAtLeast(least) => format!("≥ {least} × peer"),
        Target::AtMost(most) => format!("≤ {}", amount(most, unit)),
        Target::AtLeast(least) => format!("≥ {}", amount(least, unit)),
    }
}

fn amount(number: f64, unit: Unit) -> String {
    let scaled = |steps: &[(f64, &str)]| {
        let fits = steps.iter().rfind(|(size, _)| number.abs() >= *size).or(steps.first());
        fits.map_or_else(String::new, |(size, name)| {
            let number = number / size;
            let digits = if number.abs() >= 100.0 { 0 } else { 1 + usize::from(number.abs() < 10.0) };
            format!("{number:.digits$} {name}")
        })
    };
    match unit {
        Unit::Nanoseconds => scaled(&[(1.0, "ns"), (1e3, "µs"), (1e6, "ms"), (1e9, "s")]),
        Unit::PerSecond => scaled(&[(1.0, "/s"), (1e3, "thousand/s"), (1e6, "million/s")]),
        Unit::Bytes => scaled(&[(1.0, "B"), (1024.0, "KiB"), (1_048_576.0, "MiB")]),
        Unit::Count => format!("{number}"),
    }
}

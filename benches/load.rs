//! How much of the machine others use while a benchmark runs.
//!
//! Two busy processes beside a measured one move an fdatasync from 0.1 ms to 4 ms. So each row carries the share of all
//! processors that went to anybody but the benchmark and its children, and the table marks the rows where that was much.

use core::time::Duration;

/// Processor time, in clock ticks.
#[derive(Clone, Copy, Debug, Default)]
struct Ticks {
    total: u64,
    /// Spent on anything, or withheld by the hypervisor.
    busy: u64,
    ours: u64,
}

/// Measures from one lap to the next.
#[derive(Debug)]
pub struct Watch {
    last: Ticks,
    children: Vec<u32>,
}

impl Watch {
    /// Begins to measure.
    pub fn start() -> Self {
        Self { last: look(&[]), children: Vec::new() }
    }

    /// What this process uses counts as ours at all times; this makes a child of it count as well.
    pub fn count_as_ours(&mut self, pid: u32) {
        self.children.push(pid);
        self.last = look(&self.children);
    }

    /// The share of all processors that others used since the last lap, 0 to 1; 0 where the system does not tell.
    #[expect(clippy::cast_precision_loss, reason = "a share needs no 53rd bit")]
    pub fn lap(&mut self) -> f64 {
        let now = look(&self.children);
        let since = |of: fn(&Ticks) -> u64| of(&now).saturating_sub(of(&self.last));
        let foreign = since(|ticks| ticks.busy).saturating_sub(since(|ticks| ticks.ours));
        let total = since(|ticks| ticks.total);
        self.last = now;
        if total == 0 { 0.0 } else { foreign as f64 / total as f64 }
    }
}

/// The share of all processors in use during that time, while the caller does nothing.
pub fn during(time: Duration) -> f64 {
    let mut watch = Watch::start();
    std::thread::sleep(time);
    watch.lap()
}

fn look(children: &[u32]) -> Ticks {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    // user nice system idle iowait irq softirq steal; guests are part of user.
    let cpu: Vec<u64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .take(8)
        .flat_map(str::parse)
        .collect();
    let total = cpu.iter().sum();
    let idle: u64 = cpu.iter().skip(3).take(2).sum();
    let own = core::iter::once("self".to_owned()).chain(children.iter().map(u32::to_string));
    Ticks { total, busy: total - idle, ours: own.map(|process| used_by(&process)).sum() }
}

/// User and system time of a process and of the children it has waited for; 0 once it is gone.
fn used_by(process: &str) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The second field is a name in brackets, which may hold anything.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    fields.split_whitespace().skip(11).take(4).flat_map(str::parse::<u64>).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_work_is_counted_as_own() {
        let before = look(&[]);
        let deadline = std::time::Instant::now() + Duration::from_millis(100);
        while std::time::Instant::now() < deadline {}
        let after = look(&[]);
        assert!(after.ours > before.ours && after.total > before.total, "{before:?} {after:?}");
        assert!(after.busy >= before.busy);
    }
}

//! The process itself, under the names that Prometheus' client libraries gave to it. Read from `/proc` at each scrape;
//! where there is none, the series are left out.

use std::fs::{read_dir, read_to_string};
use std::sync::OnceLock;

use super::exposition::{Exposition, Kind, Value};

/// Clock ticks a second in `/proc`: Linux shows all architectures that we run on the same, whatever its timer does.
const TICKS: f64 = 100.0;

/// Adds the families of this process.
pub(super) fn collect(into: &mut Exposition, started: &OnceLock<Option<f64>>) {
    let mut gauge = |name: &str, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            into.declare(name, Kind::Gauge, help);
            into.push(name, Vec::new(), Value::Number(value));
        }
    };
    let status = read_to_string("/proc/self/status").unwrap_or_default();
    gauge(
        "process_resident_memory_bytes",
        "Resident memory size in bytes.",
        kib(&status, "VmRSS:"),
    );
    gauge(
        "process_virtual_memory_bytes",
        "Virtual memory size in bytes.",
        kib(&status, "VmSize:"),
    );
    let files = read_dir("/proc/self/fd").map(|entries| entries.count());
    gauge(
        "process_open_fds",
        "Number of open file descriptors.",
        // One of them is that of the folder that is being read.
        files.ok().map(|count| count.saturating_sub(1) as f64),
    );
    let limits = read_to_string("/proc/self/limits").unwrap_or_default();
    gauge(
        "process_max_fds",
        "Maximum number of open file descriptors.",
        most_files(&limits),
    );
    gauge(
        "process_threads",
        "Number of threads.",
        field(&status, "Threads:").and_then(|text| text.parse().ok()),
    );
    let stat = read_to_string("/proc/self/stat").unwrap_or_default();
    gauge(
        "process_start_time_seconds",
        "Start time of the process since unix epoch in seconds.",
        *started.get_or_init(|| start(&stat, &read_to_string("/proc/stat").unwrap_or_default())),
    );
    let name = "process_cpu_seconds_total";
    if let Some(seconds) = cpu(&stat) {
        into.declare(
            name,
            Kind::Counter,
            "Total user and system CPU time spent in seconds.",
        );
        into.push(name, Vec::new(), Value::Number(seconds));
    }
}

/// The first word behind a label of `/proc/self/status`.
fn field<'a>(status: &'a str, label: &str) -> Option<&'a str> {
    let line = status.lines().find_map(|line| line.strip_prefix(label))?;
    line.split_whitespace().next()
}

fn kib(status: &str, label: &str) -> Option<f64> {
    let kib: f64 = field(status, label)?.parse().ok()?;
    Some(kib * 1024.0)
}

fn most_files(limits: &str) -> Option<f64> {
    match field(limits, "Max open files")? {
        "unlimited" => Some(f64::INFINITY),
        number => number.parse().ok(),
    }
}

/// The numbers of `/proc/self/stat` from the third field on: the second is the name, which may hold anything.
fn numbers(stat: &str) -> Option<Vec<&str>> {
    Some(stat.rsplit_once(')')?.1.split_whitespace().collect())
}

/// Fields 14 and 15: user and system time.
fn cpu(stat: &str) -> Option<f64> {
    let fields = numbers(stat)?;
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / TICKS)
}

/// Field 22, since the machine started.
fn start(stat: &str, machine: &str) -> Option<f64> {
    let since: f64 = numbers(stat)?.get(19)?.parse().ok()?;
    let booted: f64 = field(machine, "btime")?.parse().ok()?;
    Some(booted + since / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 9 0 12345 1 1";
        assert_eq!(cpu(stat), Some(3.0));
        assert_eq!(start(stat, "cpu 1\nbtime 1000\n"), Some(1123.45));
        assert_eq!(kib("Name:\tx\nVmRSS:\t   12 kB\n", "VmRSS:"), Some(12288.0));
        let limits = "Limit  Soft\nMax open files            1024     4096     files\n";
        assert_eq!(most_files(limits), Some(1024.0));
        assert_eq!(cpu(""), None);
    }
}

//! `strftime_now(format)`: today's date for system prompts, in UTC.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// The template function.
pub(super) fn now(format: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    strftime(format, now.map_or(0, |d| d.as_secs()))
}

/// C's `strftime` for the conversions that chat templates use; an unknown one is
/// left as it stands. `seconds` since 1970-01-01 UTC.
pub(super) fn strftime(format: &str, seconds: u64) -> String {
    let date = Date::of(seconds);
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            // glibc's `%-d`: without padding.
            Some('-') => {
                let mut padded = String::new();
                let code = chars.next().unwrap_or('-');
                date.convert(code, &mut padded);
                let bare = padded.trim_start_matches('0');
                out.push_str(if bare.is_empty() { "0" } else { bare });
            }
            Some(code) => date.convert(code, &mut out),
            None => out.push('%'),
        }
    }
    out
}

struct Date {
    year: u64,
    /// 1 to 12.
    month: usize,
    day: u64,
    /// 0 is Sunday.
    weekday: usize,
    /// 1 to 366.
    yearday: u64,
    hour: u64,
    minute: u64,
    second: u64,
}

impl Date {
    fn of(seconds: u64) -> Self {
        let days = seconds / 86_400;
        let mut year = 1970;
        let mut left = days;
        while left >= year_length(year) {
            left -= year_length(year);
            year += 1;
        }
        let yearday = left + 1;
        let mut month = 1;
        while left >= month_length(year, month) {
            left -= month_length(year, month);
            month += 1;
        }
        Self {
            year,
            month,
            day: left + 1,
            weekday: usize::try_from((days + 4) % 7).unwrap_or(0),
            yearday,
            hour: seconds / 3600 % 24,
            minute: seconds / 60 % 60,
            second: seconds % 60,
        }
    }

    fn convert(&self, code: char, out: &mut String) {
        let day = DAYS[self.weekday];
        let month = MONTHS[self.month - 1];
        let twelve = (self.hour + 11) % 12 + 1;
        // Writing to a string cannot fail.
        _ = match code {
            'Y' => write!(out, "{}", self.year),
            'y' => write!(out, "{:02}", self.year % 100),
            'm' => write!(out, "{:02}", self.month),
            'd' => write!(out, "{:02}", self.day),
            'e' => write!(out, "{:2}", self.day),
            'j' => write!(out, "{:03}", self.yearday),
            'B' => out.write_str(month),
            'b' | 'h' => out.write_str(&month[..3]),
            'A' => out.write_str(day),
            'a' => out.write_str(&day[..3]),
            'w' => write!(out, "{}", self.weekday),
            'H' => write!(out, "{:02}", self.hour),
            'I' => write!(out, "{twelve:02}"),
            'p' => out.write_str(if self.hour < 12 { "AM" } else { "PM" }),
            'M' => write!(out, "{:02}", self.minute),
            'S' => write!(out, "{:02}", self.second),
            'Z' => out.write_str("UTC"),
            'z' => out.write_str("+0000"),
            'F' => out.write_str(&strftime_fields(self, "Y-m-d")),
            'T' => out.write_str(&strftime_fields(self, "H:M:S")),
            'D' | 'x' => out.write_str(&strftime_fields(self, "m/d/y")),
            'R' => out.write_str(&strftime_fields(self, "H:M")),
            'X' => out.write_str(&strftime_fields(self, "H:M:S")),
            'c' => out.write_str(&strftime_fields(self, "a b e H:M:S Y")),
            'u' => write!(out, "{}", (self.weekday + 6) % 7 + 1),
            // The clock is read to the second.
            'f' => out.write_str("000000"),
            'n' => out.write_char('\n'),
            't' => out.write_char('\t'),
            '%' => out.write_char('%'),
            other => write!(out, "%{other}"),
        };
    }
}

/// Several conversions with punctuation between them.
fn strftime_fields(date: &Date, fields: &str) -> String {
    let mut out = String::new();
    for c in fields.chars() {
        if c.is_ascii_alphabetic() {
            date.convert(c, &mut out);
        } else {
            out.push(c);
        }
    }
    out
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn year_length(year: u64) -> u64 {
    if is_leap(year) { 366 } else { 365 }
}

fn month_length(year: u64, month: usize) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

//! What was measured, as a table for people or JSON for programs.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::work::{Op, Tally};

/// One operation on one endpoint or two.
pub(super) struct Row {
    pub(super) op: Op,
    /// In the order of the endpoints.
    pub(super) tallies: Vec<Tally>,
}

fn per_second(count: u64, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64().max(1e-9)
}

fn rate(tally: &Tally) -> f64 {
    per_second(tally.latency.count(), tally.elapsed)
}

/// First endpoint over second, where there are two and both did something.
fn ratio(row: &Row) -> Option<f64> {
    match row.tallies.as_slice() {
        [first, second] if second.latency.count() > 0 => Some(rate(first) / rate(second)),
        _ => None,
    }
}

/// A table, one line an operation and endpoint.
pub(super) fn table(endpoints: &[&str], rows: &[Row]) -> String {
    let width = endpoints.iter().map(|name| name.len()).max().unwrap_or_default();
    let mut text = format!(
        "{:<7} {:<width$} {:>10} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>7}\n",
        "", "", "ops/s", "MB/s", "p50", "p90", "p99", "p99.9", "max", "errors"
    );
    for row in rows {
        for (endpoint, tally) in endpoints.iter().zip(&row.tallies) {
            text += &line(row.op.name(), endpoint, width, tally);
        }
        if let Some(ratio) = ratio(row) {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{:<7} {:<width$} {ratio:>9.2}x", "", "ratio");
        }
    }
    text
}

fn line(op: &str, endpoint: &str, width: usize, tally: &Tally) -> String {
    let latency = &tally.latency;
    let mb = per_second(tally.body_bytes, tally.elapsed) / 1e6;
    let mut text = format!("{op:<7} {endpoint:<width$} {:>10.0} {mb:>9.1}", rate(tally));
    for percent in [50.0, 90.0, 99.0, 99.9] {
        let _ = write!(text, " {:>9}", short(latency.percentile(percent)));
    }
    let _ = writeln!(text, " {:>9} {:>7}", short(latency.max()), tally.error_count);
    text
}

/// Three digits or so, and a unit.
fn short(time: Duration) -> String {
    match time.as_nanos() {
        0..1_000_000 => format!("{:.0} us", time.as_secs_f64() * 1e6),
        1_000_000..100_000_000 => format!("{:.2} ms", time.as_secs_f64() * 1e3),
        100_000_000..1_000_000_000 => format!("{:.0} ms", time.as_secs_f64() * 1e3),
        _ => format!("{:.2} s", time.as_secs_f64()),
    }
}

/// The same figures, unrounded: times in microseconds.
pub(super) fn json(endpoints: &[&str], rows: &[Row], setting: Value) -> Value {
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            let tallies = endpoints.iter().zip(&row.tallies).map(|(endpoint, tally)| figures(endpoint, tally));
            json!({ "op": row.op.name(), "results": tallies.collect::<Vec<_>>(), "ratio": ratio(row) })
        })
        .collect();
    json!({ "setting": setting, "operations": rows })
}

fn figures(endpoint: &str, tally: &Tally) -> Value {
    let us = |time: Duration| time.as_secs_f64() * 1e6;
    let latency = &tally.latency;
    json!({
        "endpoint": endpoint,
        "count": latency.count(),
        "elapsed_s": tally.elapsed.as_secs_f64(),
        "ops_per_s": rate(tally),
        "bytes_per_s": per_second(tally.body_bytes, tally.elapsed),
        "p50_us": us(latency.percentile(50.0)),
        "p90_us": us(latency.percentile(90.0)),
        "p99_us": us(latency.percentile(99.0)),
        "p999_us": us(latency.percentile(99.9)),
        "max_us": us(latency.max()),
        "errors": tally.error_count,
        "first_error": tally.first_error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(count: u64, seconds: u64) -> Tally {
        let mut tally = Tally { body_bytes: count * 1000, elapsed: Duration::from_secs(seconds), ..Tally::default() };
        (0..count).for_each(|_| tally.latency.record(Duration::from_micros(250)));
        tally
    }

    #[test]
    fn two_endpoints_are_compared_by_their_rates() {
        let row = Row { op: Op::Get, tallies: vec![tally(3000, 2), tally(1000, 1)] };
        let text = table(&["http://a", "http://b"], std::slice::from_ref(&row));
        for piece in ["1500", "1000", "1.50x", "250 us"] {
            assert!(text.contains(piece), "{text} lacks {piece}");
        }
        let json = json(&["http://a", "http://b"], &[row], Value::Null);
        assert_eq!(json["operations"][0]["ratio"], 1.5);
        assert_eq!(json["operations"][0]["results"][0]["bytes_per_s"], 1_500_000.0);
    }

    #[test]
    fn rounds_add_up_in_time_and_count() {
        let mut sum = tally(10, 2);
        sum.then(tally(30, 3));
        assert_eq!((sum.latency.count(), sum.elapsed, sum.body_bytes), (40, Duration::from_secs(5), 40_000));
    }

    #[test]
    fn times_are_short() {
        let cases = [(250, "250 us"), (1_500, "1.50 ms"), (250_000, "250 ms"), (2_500_000, "2.50 s")];
        for (us, text) in cases {
            assert_eq!(short(Duration::from_micros(us)), text);
        }
    }
}

//! Metrics as Prometheus reads them.
//!
//! Source: Prometheus text exposition format 0.0.4.

use std::fmt::{Display, Write as _};

use storage::metrics::Histogram;

/// The media type.
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a metric does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It grows until the process ends.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Counts by upper bounds, in seconds.
    Histogram,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Metrics, written family by family.
#[derive(Debug, Default)]
pub struct Exposition(String);

/// Samples of one metric.
#[derive(Debug)]
pub struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl Exposition {
    /// Begins a metric.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &str) -> Family<'_> {
        let kind = kind.name();
        // Writing to a string cannot fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        Family {
            text: &mut self.0,
            name,
        }
    }

    /// A metric of one sample.
    pub fn single(&mut self, name: &'static str, kind: Kind, help: &str, value: impl Display) {
        self.family(name, kind, help).sample(&[], value);
    }

    /// All of it.
    pub fn into_text(self) -> String {
        self.0
    }
}

impl Family<'_> {
    /// Adds a sample.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        let labels = written(labels);
        let _ = writeln!(self.text, "{}{labels} {value}", self.name);
    }

    /// Adds a histogram.
    pub fn histogram(&mut self, labels: &[(&str, &str)], histogram: &Histogram) {
        let name = self.name;
        let counts = histogram.up_to_bounds();
        let bounds = Histogram::BOUNDS.iter().map(ToString::to_string);
        let bounds = bounds.chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(counts) {
            let labels = written(&[labels, &[("le", &bound)]].concat());
            let _ = writeln!(self.text, "{name}_bucket{labels} {count}");
        }
        let (labels, seconds) = (written(labels), histogram.total().as_secs_f64());
        let count = counts[Histogram::BOUNDS.len()];
        let _ = writeln!(self.text, "{name}_sum{labels} {seconds}");
        let _ = writeln!(self.text, "{name}_count{labels} {count}");
    }
}

fn written(labels: &[(&str, &str)]) -> String {
    if labels.is_empty() {
        return String::new();
    }
    let label = |(name, value): &(&str, &str)| {
        let value = value.replace('\\', "\\\\");
        let value = value.replace('"', "\\\"").replace('\n', "\\n");
        format!("{name}=\"{value}\"")
    };
    let labels: Vec<String> = labels.iter().map(label).collect();
    format!("{{{}}}", labels.join(","))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn histograms_end_with_all_and_labels_are_escaped() {
        let histogram = Histogram::default();
        histogram.add(Duration::from_millis(30));
        let mut text = Exposition::default();
        let mut family = text.family("x_seconds", Kind::Histogram, "Time.");
        family.histogram(&[("route", "a\"b\\")], &histogram);
        let text = text.into_text();
        for line in [
            "# TYPE x_seconds histogram",
            "x_seconds_bucket{route=\"a\\\"b\\\\\",le=\"0.025\"} 0",
            "x_seconds_bucket{route=\"a\\\"b\\\\\",le=\"0.05\"} 1",
            "x_seconds_bucket{route=\"a\\\"b\\\\\",le=\"+Inf\"} 1",
            "x_seconds_sum{route=\"a\\\"b\\\\\"} 0.03",
            "x_seconds_count{route=\"a\\\"b\\\\\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}

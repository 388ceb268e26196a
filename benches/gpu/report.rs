//! Tables in Markdown.

/// How numbers are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbers {
    /// Whether they are written at all: an emulated device has none that mean something.
    pub(crate) are_shown: bool,
}

impl Numbers {
    /// GB/s: so many bytes in so many seconds.
    pub(crate) fn rate(self, bytes: u64, seconds: f64) -> String {
        self.short(bytes as f64 / 1e9 / seconds)
    }

    /// Seconds as milliseconds.
    pub(crate) fn milliseconds(self, seconds: f64) -> String {
        self.short(seconds * 1e3)
    }

    /// A number with three digits or more.
    pub(crate) fn short(self, number: f64) -> String {
        if !self.are_shown || !number.is_finite() {
            return "—".to_owned();
        }
        let digits = match number.abs() {
            size if size >= 100.0 => 0,
            size if size >= 10.0 => 1,
            size if size >= 1.0 => 2,
            _ => 3,
        };
        format!("{number:.digits$}")
    }
}

/// A row of a table.
pub(crate) fn row(cells: &[String]) -> String {
    format!("| {} |", cells.join(" | "))
}

/// The two rows a table begins with.
pub(crate) fn head(titles: &[&str]) -> String {
    let titles: Vec<String> = titles.iter().map(|&title| title.to_owned()).collect();
    let rule = vec!["---".to_owned(); titles.len()];
    format!("{}\n{}", row(&titles), row(&rule).replace(' ', ""))
}

/// What the processor is called, where Linux says it.
pub(crate) fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let mut lines = text.lines().filter(|line| line.starts_with("model name"));
    let name = lines.next().and_then(|line| line.split_once(':'));
    name.map_or("unknown processor", |(_, name)| name.trim())
        .to_owned()
}

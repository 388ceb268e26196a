//! What to say of a label that a coordinate does not have.

use super::Coordinate;
use super::values::{Span, Values};
use crate::Error;
use crate::cf::number::quoted;

/// Labels compared with a misspelt one.
const CANDIDATES_MAX: usize = 1000;

impl Coordinate {
    /// No value has a label: says so, where the coordinate reaches, and what is near.
    pub(super) fn missing(&self, label: &str, span: &Span) -> Error {
        let what = if span.is_partial { "nothing in" } else { "no" };
        let count = self.index.len();
        let text = |rank: usize| self.values.text(self.index.position(rank) as usize);
        if count == 0 {
            let reason = format!("has {what} {}; it has no values", quoted(label));
            return self.fail(reason, Vec::new());
        }
        let suggestions = if matches!(self.values, Values::Texts(_)) {
            alike(label, (0..count.min(CANDIDATES_MAX)).map(text))
        } else {
            let point = self.turned(&span.first);
            let upper = self.between(Some(&point), None).start;
            let lower = upper.checked_sub(1);
            let mut near: Vec<usize> = lower
                .into_iter()
                .chain((upper < count).then_some(upper))
                .collect();
            if let [lower, upper] = near[..]
                && !self.is_lower_nearer(lower, upper, &point)
            {
                near.reverse();
            }
            near.into_iter().map(text).collect()
        };
        let mut reason = format!(
            "has {what} {}; it goes from {} to {}",
            quoted(label),
            shortest(&text(0)),
            shortest(&text(count - 1))
        );
        if !suggestions.is_empty() {
            let near: Vec<String> = suggestions.iter().map(|label| shortest(label)).collect();
            reason.push_str(&format!(", nearest {}", near.join(" and ")));
        }
        self.fail(reason, suggestions)
    }
}

/// At most 40 bytes of a label.
fn shortest(label: &str) -> String {
    let end = label.floor_char_boundary(40);
    let dots = if end < label.len() { "…" } else { "" };
    format!("{}{dots}", &label[..end])
}

/// Up to three labels that differ least from a misspelt one, and by no more than a third.
pub(super) fn alike(label: &str, candidates: impl Iterator<Item = String>) -> Vec<String> {
    const LENGTH_MAX: usize = 64;
    if label.len() > LENGTH_MAX {
        return Vec::new();
    }
    let bound = label.chars().count() / 3 + 1;
    let mut near: Vec<(usize, String)> = candidates
        .filter(|candidate| candidate.len() <= LENGTH_MAX)
        .map(|candidate| (edits(label, &candidate), candidate))
        .filter(|(distance, _)| *distance <= bound)
        .collect();
    near.sort();
    near.truncate(3);
    near.into_iter().map(|(_, candidate)| candidate).collect()
}

/// Letters to insert, delete or replace to make one text of another, whatever their case.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (nth, c) in a.to_lowercase().chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], nth + 1);
        for (at, &other) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(c != other);
            diagonal = row[at + 1];
            row[at + 1] = replaced.min(row[at] + 1).min(row[at + 1] + 1);
        }
    }
    row[b.len()]
}

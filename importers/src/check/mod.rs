//! Whether a source follows the CF conventions, and whether it is stored well: findings, each with
//! what to do about it.
//!
//! ```text
//! Source ─► File (variables by path, with their roles) ─► rules ─► findings, by variable
//! ```
//!
//! Only headers are read, and the values of coordinates, piece by piece. An [`Severity::Error`] is
//! what makes readers fail or see wrong values; everything else is a [`Severity::Warning`]. Rules
//! about what is absent hold only for files that mean to follow CF: NetCDF, and others with
//! `Conventions`.
//!
//! Source: CF conventions 1.11, whose sections findings name; the NetCDF User's Guide for
//! attributes; HDF5 "Chunking in HDF5".

mod attributes;
mod chunks;
mod coordinates;
mod file;
mod references;
mod scan;
mod time;
mod units;

use self::file::File;
use crate::source::Source;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Readers cope, or a few do not.
    Warning,
    /// Readers that follow CF fail, or show wrong values.
    Error,
}

impl Severity {
    /// `warning` or `error`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// Something that a file should do otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Path of the variable; empty for the file itself.
    pub variable: String,
    /// Name of the rule, which stays the same.
    pub rule: &'static str,
    /// What is wrong, one line.
    pub what: String,
    /// What to do about it, one line.
    pub advice: String,
    /// Section of the CF conventions, if it is of them.
    pub section: Option<&'static str>,
}

/// What `source` should do otherwise, by variable in the order of the file. Blocks.
///
/// A coordinate whose values cannot be read is a finding too.
pub fn check_source(source: &Source) -> Vec<Finding> {
    let file = File::new(source);
    let mut findings = Findings::default();
    attributes::check_file(&file, &mut findings);
    for place in file.variables() {
        findings.variable.clone_from(&place.path);
        units::check(&file, place, &mut findings);
        time::check(place, &mut findings);
        coordinates::check(&file, place, &mut findings);
        references::check(&file, place, &mut findings);
        attributes::check(&file, place, &mut findings);
        chunks::check(&file, place, &mut findings);
    }
    findings.all
}

/// Findings so far, and the variable they are about.
#[derive(Default)]
struct Findings {
    all: Vec<Finding>,
    variable: String,
}

impl Findings {
    fn add(
        &mut self,
        severity: Severity,
        rule: &'static str,
        section: impl Into<Option<&'static str>>,
        what: impl Into<String>,
        advice: impl Into<String>,
    ) {
        let one_line = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
        self.all.push(Finding {
            severity,
            variable: self.variable.clone(),
            rule,
            what: one_line(what.into()),
            advice: one_line(advice.into()),
            section: section.into(),
        });
    }

    fn warn(
        &mut self,
        rule: &'static str,
        section: impl Into<Option<&'static str>>,
        what: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.add(Severity::Warning, rule, section, what, advice);
    }

    fn error(
        &mut self,
        rule: &'static str,
        section: impl Into<Option<&'static str>>,
        what: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.add(Severity::Error, rule, section, what, advice);
    }
}

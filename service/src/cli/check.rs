//! `quarr check`: what a source should do otherwise.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use importers::{Finding, Severity, Source, check_source};
use serde_json::{Value, json};

use super::Failed;

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// The file, of any format that import takes.
    source: PathBuf,
}

/// Prints the findings; fails if one of them is an error.
pub(super) async fn check(args: CheckArgs, as_json: bool) -> Result<ExitCode, Failed> {
    let path = args.source.clone();
    let checked = tokio::task::spawn_blocking(move || {
        let source = Source::open(&path)?;
        let findings = check_source(&source);
        Ok::<_, importers::Error>((source, findings))
    });
    let (source, findings) = checked.await??;
    let of = |severity| findings.iter().filter(|f| f.severity == severity).count();
    let (errors, warnings) = (of(Severity::Error), of(Severity::Warning));
    let shown = args.source.display();
    if as_json {
        let body = json!({
            "source": shown.to_string(),
            "format": source.format(),
            "errors": errors,
            "warnings": warnings,
            "findings": findings.iter().map(to_json).collect::<Vec<_>>(),
        });
        out!("{body}");
    } else {
        let mut variable = None;
        for finding in &findings {
            if variable.replace(&finding.variable) != Some(&finding.variable) {
                out!("/{}", finding.variable);
            }
            out!("  {}", line(finding));
        }
        let variables: usize = source
            .groups()
            .iter()
            .map(|group| group.variables.len())
            .sum();
        let format = source.format();
        out!("{shown}: {format}, {variables} variables, {errors} errors, {warnings} warnings");
    }
    Ok(match errors {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

fn line(finding: &Finding) -> String {
    let section = finding
        .section
        .map_or(String::new(), |section| format!(" (CF {section})"));
    let (severity, what, advice) = (finding.severity.name(), &finding.what, &finding.advice);
    format!("{severity:<8} {what}: {advice}{section}")
}

fn to_json(finding: &Finding) -> Value {
    json!({
        "severity": finding.severity.name(),
        "variable": finding.variable,
        "rule": finding.rule,
        "what": finding.what,
        "advice": finding.advice,
        "section": finding.section,
    })
}

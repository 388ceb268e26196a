//! Making and checking what a store is in: a directory, or a bucket and how it is set up.
//!
//! Nothing that is there is made weaker, and nothing that somebody decided is changed: only what was
//! never set is set, and said. Whatever these credentials may not look at is said to be unknown.

mod rules;
mod s3;
mod sdk;

use std::path::Path;

use crate::backend::{Given, Kind};
use crate::{Error, Probe, Store, advice, error};

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is as it should be.
    Fine,
    /// It was set up just now.
    Done,
    /// It works; something could be better.
    Advice,
    /// It could not be looked at.
    Unknown,
    /// The store cannot be used, or data is in danger.
    Wrong,
}

impl Outcome {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fine => "ok",
            Self::Done => "done",
            Self::Advice => "advice",
            Self::Unknown => "unknown",
            Self::Wrong => "wrong",
        }
    }
}

/// One thing that was looked at, what was found, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at, for instance `encryption`.
    pub check: &'static str,
    /// How it came out.
    pub outcome: Outcome,
    /// What was found or done, and what to do about it.
    pub detail: String,
}

impl Finding {
    fn new(check: &'static str, outcome: Outcome, detail: impl Into<String>) -> Self {
        Self {
            check,
            outcome,
            detail: detail.into(),
        }
    }
}

/// How a bucket is to be set up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InitOptions {
    /// The KMS key (id, ARN or alias) that objects are encrypted with by default.
    pub kms_key: Option<String>,
    /// The region a new bucket is made in.
    pub region: Option<String>,
}

/// Receives findings as they are made.
pub(crate) type Tell<'a> = &'a (dyn Fn(Finding) + Sync);

/// Makes the store at `url` if it is not there, sets up what was never set, checks the rest and
/// probes it. Settings are those of [`Store::open_with`]. Called again it changes nothing more.
///
/// # Errors
/// [`Error::Invalid`] if the URL, a setting or an option cannot be used, and [`Error::Store`] if the
/// place cannot be made. All else that is wrong is a [`Finding`].
pub async fn init_store(
    url: &str,
    given: Given<'_>,
    options: &InitOptions,
    tell: &(dyn Fn(Finding) + Sync),
) -> Result<(), Error> {
    let kind = Kind::of(url)?;
    if !matches!(kind, Kind::S3(_)) {
        let set = [
            ("a KMS key", &options.kms_key),
            ("a region", &options.region),
        ];
        if let Some((what, _)) = set.iter().find(|(_, value)| value.is_some()) {
            let reason = format!("{what} can be set for S3 buckets only, not for {url}");
            return Err(Error::invalid("store", reason));
        }
    }
    // What is wrong with the settings is said before anything is made.
    let mut settings = given.to_vec();
    settings.extend(
        options
            .region
            .as_deref()
            .map(|region| ("aws_region", region)),
    );
    let store = Store::open_with(url, &settings)?;
    let is_there = match &kind {
        Kind::Local(path) => make_directory(path, tell)?,
        Kind::S3(_) => s3::init(url, &settings, options.kms_key.as_deref(), tell).await?,
        Kind::Memory | Kind::Google(_) | Kind::Azure(_) => true,
    };
    if is_there {
        probe(&store, tell).await;
    }
    others(&kind, tell);
    Ok(())
}

/// Checks the store at `url` and, if `probes`, whether it honours put-if-absent, which writes an
/// object and deletes it. Changes nothing else.
///
/// # Errors
/// [`Error::Invalid`] if the URL or a setting cannot be used. All else that is wrong is a
/// [`Finding`].
pub async fn check_store(
    url: &str,
    given: Given<'_>,
    probes: bool,
    tell: &(dyn Fn(Finding) + Sync),
) -> Result<(), Error> {
    let kind = Kind::of(url)?;
    let store = Store::open_with(url, given)?;
    let is_there = match &kind {
        Kind::Local(path) => look_at_directory(path, tell),
        Kind::S3(_) => s3::check(url, given, tell).await?,
        Kind::Memory | Kind::Google(_) | Kind::Azure(_) => true,
    };
    if is_there && probes {
        probe(&store, tell).await;
    } else if is_there {
        read(&store, tell).await;
    }
    others(&kind, tell);
    Ok(())
}

fn make_directory(path: &Path, tell: Tell<'_>) -> Result<bool, Error> {
    let shown = path.display();
    if path.is_dir() {
        let detail = format!("{shown} is there");
        tell(Finding::new("directory", Outcome::Fine, detail));
        return Ok(true);
    }
    std::fs::create_dir_all(path)
        .map_err(|error| Error::invalid("store", format!("{shown} cannot be made: {error}")))?;
    let detail = format!("{shown} was made");
    tell(Finding::new("directory", Outcome::Done, detail));
    Ok(true)
}

fn look_at_directory(path: &Path, tell: Tell<'_>) -> bool {
    let shown = path.display();
    let (outcome, detail) = match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => (Outcome::Fine, format!("{shown} is there")),
        Ok(_) => (Outcome::Wrong, format!("{shown} is no directory")),
        Err(error) => (
            Outcome::Wrong,
            format!("{shown}: {error}; quarr store init makes it"),
        ),
    };
    tell(Finding::new("directory", outcome, detail));
    outcome == Outcome::Fine
}

/// Says whether the store keeps the promise that commits rest on.
async fn probe(store: &Store, tell: Tell<'_>) {
    let (outcome, detail) = match store.probe().await {
        Ok(Probe::Sound { left: None }) => (
            Outcome::Fine,
            "of several writers of one object, one wins".to_owned(),
        ),
        Ok(Probe::Sound { left: Some(key) }) => (
            Outcome::Advice,
            format!(
                "of several writers of one object, one wins; these credentials may not delete: \
                 object {key} is left and may go, and gc and expire need others"
            ),
        ),
        Ok(Probe::ReadOnly) => (
            Outcome::Wrong,
            "these credentials may read and not write: quarr serve --read-only serves them"
                .to_owned(),
        ),
        Ok(Probe::Unsound { reason }) => (
            Outcome::Wrong,
            format!(
                "the store does not honour put-if-absent: {reason}. Commits would be lost; \
                 use another store"
            ),
        ),
        Err(error) => (Outcome::Wrong, explain(&error)),
    };
    tell(Finding::new("put-if-absent", outcome, detail));
    if let Some(ahead) = store.clock_ahead() {
        let seconds = ahead.num_seconds();
        let (outcome, detail) = match seconds.abs() {
            ..=60 => (Outcome::Fine, "it agrees with the store's".to_owned()),
            _ => (
                Outcome::Wrong,
                format!("the store's is {seconds} s ahead: set this machine's"),
            ),
        };
        tell(Finding::new("clock", outcome, detail));
    }
}

/// Says whether the store can be read.
async fn read(store: &Store, tell: Tell<'_>) {
    let (outcome, detail) = match store.folders().await {
        Ok(found) => (
            Outcome::Fine,
            format!("it can be listed; folders in it: {}", found.len()),
        ),
        Err(error) => (Outcome::Wrong, explain(&error)),
    };
    tell(Finding::new("reading", outcome, detail));
}

/// Says what cannot be looked at through the interface that Quarr uses.
fn others(kind: &Kind, tell: Tell<'_>) {
    let how = match kind {
        Kind::Google(url) => {
            let bucket = url.host_str().unwrap_or_default();
            format!("gcloud storage buckets describe gs://{bucket}")
        }
        Kind::Azure(_) => "az storage container show".to_owned(),
        Kind::Local(_) | Kind::Memory | Kind::S3(_) => return,
    };
    let detail = format!(
        "public access, encryption, soft delete and lifecycle rules are not looked at here: \
         {how} shows them"
    );
    tell(Finding::new("set-up", Outcome::Unknown, detail));
}

/// An error with what to do about it.
fn explain(error: &Error) -> String {
    let text = error::chain(error);
    match advice(error) {
        Some(advice) => format!("{advice} ({text})"),
        None => text,
    }
}

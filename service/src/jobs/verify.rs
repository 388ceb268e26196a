//! Verification as a job.

use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use query::{Progress, Report};
use serde::{Deserialize, Serialize};
use storage::{Damage, Repository, Scope};

use super::{JobReport, Kind, Origin, ProgressInfo, Work};
use crate::error::Failure;
use crate::state::State;

/// How often it is noted how far a verification is, which takes time of its own.
const NOTE_INTERVAL: Duration = Duration::from_secs(1);

/// What to verify.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VerifySpec {
    /// The repository.
    pub repository: String,
    /// A branch, tag, commit, `x~n` or `x@time`; everything the repository stores if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Check only what came after this commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Decode every chunk and recompute the statistics too.
    #[serde(default)]
    pub deep: bool,
}

impl Kind for VerifySpec {
    fn check<'a>(&'a self, state: &'a State, _: Origin) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            let repository = state.repository(&self.repository.parse()?).await?;
            for text in self.reference.iter().chain(&self.since) {
                repository.resolve(&text.parse()?).await?;
            }
            Ok(())
        })
    }

    fn run<'a>(&'a self, work: &'a Work) -> BoxFuture<'a, Result<JobReport, Failure>> {
        Box::pin(async move {
            let mut progress: Progress = work.noted().unwrap_or_default();
            let mut noted = Instant::now();
            let mut observe = |progress: &Progress| {
                work.show(progress_info(progress));
                if noted.elapsed() > NOTE_INTERVAL {
                    noted = Instant::now();
                    work.note(progress);
                }
                true
            };
            let result = verify(work.state(), self, &mut progress, &mut observe).await;
            work.show(progress_info(&progress));
            work.note(&progress);
            Ok(JobReport::Verify(result?))
        })
    }
}

/// How far a verification is, as a job shows it.
pub(crate) fn progress_info(progress: &Progress) -> ProgressInfo {
    ProgressInfo {
        bytes: progress.chunk_bytes,
        total_bytes: progress.total_bytes,
        chunks: progress.chunks,
        ..ProgressInfo::default()
    }
}

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DamageInfo {
    /// Key of the object, or the place in the hierarchy.
    pub object: String,
    /// What is wrong.
    pub reason: String,
}

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ReportInfo {
    /// Everything that is not as it was written.
    pub damage: Vec<DamageInfo>,
    /// Files outside the repository that are not what was imported, or cannot be read.
    #[serde(default)]
    pub originals: Vec<DamageInfo>,
    /// Log entries checked.
    pub entries: u64,
    /// Commits checked.
    pub commits: u64,
    /// Objects checked.
    pub objects: u64,
    /// Stored chunks whose bytes were checked.
    pub chunks: u64,
    /// Bytes of those chunks.
    pub chunk_bytes: u64,
    /// Objects that nothing refers to.
    pub unreferenced: u64,
}

impl From<Report> for ReportInfo {
    fn from(report: Report) -> Self {
        let info = |Damage { object, reason }| DamageInfo { object, reason };
        Self {
            damage: report.damage.into_iter().map(info).collect(),
            originals: report.originals.into_iter().map(info).collect(),
            entries: report.entries,
            commits: report.commits,
            objects: report.objects,
            chunks: report.chunks,
            chunk_bytes: report.chunk_bytes,
            unreferenced: report.unreferenced,
        }
    }
}

/// Verifies what is asked for.
///
/// # Errors
/// 404 if there is no such repository or commit, 400 if the scope is not valid, 503 if the store
/// failed. Damage is part of the report.
pub async fn verify(
    state: &State,
    spec: &VerifySpec,
    progress: &mut Progress,
    observe: &mut (dyn FnMut(&Progress) -> bool + Send),
) -> Result<ReportInfo, Failure> {
    let repository = state.repository(&spec.repository.parse()?).await?;
    let of = format!("{} {}", repository.id(), describe(spec));
    if progress.of.is_empty() {
        *progress = Progress::new(&of, spec.deep);
    }
    if progress.of != of {
        return Err(Failure::bad_request(
            "resume",
            format!("this is how far another verification got ({})", progress.of),
        ));
    }
    let resolve = async |text: &str| {
        let resolved = repository.resolve(&text.parse()?).await?;
        Ok::<_, Failure>(resolved.commit)
    };
    let scope = match (&spec.reference, &spec.since) {
        (None, None) => Scope::Everything,
        (Some(reference), None) => Scope::Commit(resolve(reference).await?),
        (reference, Some(since)) => Scope::Since {
            heads: match reference {
                Some(reference) => vec![resolve(reference).await?],
                None => repository.head().await?.refs.into_values().collect(),
            },
            since: resolve(since).await?,
        },
    };
    let engine = state.engine();
    let mut report = engine
        .verify(&repository, &scope, progress, observe)
        .await?;
    if scope == Scope::Everything {
        report
            .damage
            .extend(check_signatures(state, &repository).await?);
    }
    Ok(report.into())
}

/// What is verified, in words.
fn describe(spec: &VerifySpec) -> String {
    let reference = spec.reference.as_deref().unwrap_or("everything");
    let since = spec.since.as_ref().map(|since| format!(" since {since}"));
    let deep = if spec.deep { " deep" } else { "" };
    format!("{reference}{}{deep}", since.unwrap_or_default())
}

/// What is wrong with the signatures of the published log, if its keys are here.
async fn check_signatures(
    state: &State,
    repository: &Repository,
) -> Result<Option<Damage>, Failure> {
    let Some(signing) = state.signing() else {
        return Ok(None);
    };
    let keys = signing.keys_of(repository)?.known();
    let published = match repository.published().await {
        Ok(published) => published.filter(|_| !keys.is_empty()),
        // It is damaged, and that was found already.
        Err(storage::Error::Corrupt { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let wrong = |reason| Damage {
        object: "tlog/checkpoint".to_owned(),
        reason,
    };
    Ok(published
        .and_then(|published| published.verify(&keys).err())
        .map(wrong))
}

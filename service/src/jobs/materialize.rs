//! Copying in what arrays refer to elsewhere, as a job.
//!
//! One that was stopped begins again; if its commit was made already, it finds nothing left to copy.

use array::NodePath;
use futures::future::BoxFuture;
use importers::Progress;
use serde::{Deserialize, Serialize};
use storage::RefName;

use super::{JobReport, Kind, Origin, ProgressInfo, Work};
use crate::error::Failure;
use crate::state::State;

/// Memory for shards being written unless it is said.
const MEMORY_MIB: u64 = 192;

/// What to copy in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MaterializeSpec {
    /// The repository.
    #[schema(pattern = "^[a-z0-9][a-z0-9._-]{0,62}$")]
    pub repository: String,
    /// The branch to commit to; `main` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
    pub branch: Option<String>,
    /// The group or array; all if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The commit's message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Who commits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Memory for shards being written, in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
}

/// What was copied in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MaterializeReport {
    /// The commit; none if no array had chunks elsewhere.
    pub commit: Option<String>,
    /// The arrays.
    pub materialized: Vec<String>,
    /// Uncompressed bytes of their values.
    pub bytes: u64,
}

impl MaterializeSpec {
    fn place(&self) -> Result<(RefName, NodePath), Failure> {
        let path = match &self.path {
            Some(path) => path.parse()?,
            None => NodePath::root(),
        };
        Ok((self.branch.as_deref().unwrap_or("main").parse()?, path))
    }
}

impl Kind for MaterializeSpec {
    fn check<'a>(&'a self, state: &'a State, _: Origin) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            let (branch, path) = self.place()?;
            let pinned = state.snapshot(&self.repository, branch.as_str()).await?;
            pinned.snapshot.node(&path).await?;
            Ok(())
        })
    }

    fn run<'a>(&'a self, work: &'a Work) -> BoxFuture<'a, Result<JobReport, Failure>> {
        Box::pin(async move {
            let state = work.state();
            let (branch, path) = self.place()?;
            let repository = state.repository(&self.repository.parse()?).await?;
            let show = |progress: &Progress| {
                work.show(ProgressInfo {
                    bytes: progress.bytes,
                    total_bytes: progress.total_bytes,
                    chunks: progress.shards,
                    total_chunks: Some(progress.total_shards),
                    current: Some(progress.variable.clone()),
                    ..ProgressInfo::default()
                });
            };
            let author = self.author.as_deref().unwrap_or("quarr");
            let done = importers::materialize(
                state.engine(),
                &repository,
                (&branch, &path),
                (author, self.message.as_deref().unwrap_or_default()),
                self.memory_mib.unwrap_or(MEMORY_MIB).clamp(1, 1 << 20) << 20,
                &show,
            )
            .await?;
            Ok(JobReport::Materialize(MaterializeReport {
                commit: done.commit.map(|commit| commit.to_string()),
                materialized: done.arrays.iter().map(ToString::to_string).collect(),
                bytes: done.bytes,
            }))
        })
    }
}

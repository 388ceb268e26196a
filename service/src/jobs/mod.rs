//! Long work: durable in the store, so that it goes on after a restart.
//!
//! ```text
//! begin ─► record, put-if-absent ─► queue ─► task ─► record overwritten every few seconds ─► done
//!                                             ▲                    │ its server is gone
//!                                             └──── another one ◄──┘
//! ```
//!
//! `engine` runs jobs whatever they do, `records` stores them; what a kind of job does is in a
//! module of its own, which is a `Kind` and a variant of [`JobSpec`] and of [`JobReport`].

mod engine;
mod export;
mod import;
mod kind;
mod materialize;
mod records;
mod verify;

use array::NodePath;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use storage::RepoName;
use uuid::Uuid;

use crate::auth::Action;
use crate::error::Failure;

pub use engine::{
    Here, Jobs, Settings, begin, cancel, ended, hand_over, keep_adopting, list, resume, show,
    unfinished, wait,
};
pub(crate) use export::outbox;
pub use export::{ExportReport, ExportSpec, PublishReport, PublishSpec};
pub use import::{CopiedInfo, ImportReport, ImportSpec, ImportedArray, TrialInfo, trial_infos};
pub(crate) use kind::{Kind, Work};
pub use materialize::{MaterializeReport, MaterializeSpec};
pub use verify::{DamageInfo, ReportInfo, VerifySpec, verify};

/// What a job does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum JobSpec {
    /// Checks stored bytes.
    Verify(VerifySpec),
    /// Makes a commit of files.
    Import(Box<ImportSpec>),
    /// Writes what a commit holds in a format of other programs.
    Export(Box<ExportSpec>),
    /// Brings a plain Zarr v3 mirror to the head of a branch.
    Publish(PublishSpec),
    /// Copies in the values that arrays refer to elsewhere.
    Materialize(MaterializeSpec),
}

impl JobSpec {
    /// Every kind of work, as [`JobSpec::name`] calls it.
    pub const NAMES: [&str; 5] = ["verify", "import", "export", "publish", "materialize"];

    /// What kind of work it is, as documents have it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Verify(_) => "verify",
            Self::Import(_) => "import",
            Self::Export(_) => "export",
            Self::Publish(_) => "publish",
            Self::Materialize(_) => "materialize",
        }
    }

    /// The repository it is about, and what whoever asks for it must be allowed to do to which nodes of
    /// that. What writes outside of the store is for writers, though it only reads there; it takes
    /// coordinates along from groups above, so it is for readers of all.
    ///
    /// # Errors
    /// 400 for names that cannot be.
    pub fn needs(&self) -> Result<(RepoName, Vec<(Action, NodePath)>), Failure> {
        let (repository, path) = match self {
            Self::Verify(spec) => (&spec.repository, None),
            Self::Import(spec) => (&spec.repository, spec.group.as_deref()),
            Self::Export(spec) => (&spec.repository, spec.path.as_deref()),
            Self::Publish(spec) => (&spec.repository, spec.path.as_deref()),
            Self::Materialize(spec) => (&spec.repository, spec.path.as_deref()),
        };
        let path: NodePath = path.unwrap_or("").parse()?;
        let all = (Action::Read, NodePath::root());
        let needs = match self {
            Self::Verify(_) => vec![all],
            Self::Import(_) | Self::Materialize(_) => vec![(Action::Write, path)],
            Self::Export(_) | Self::Publish(_) => vec![(Action::Write, path), all],
        };
        Ok((repository.parse()?, needs))
    }

    /// The same with this author of what it commits.
    #[must_use]
    pub fn by(mut self, author: String) -> Self {
        match &mut self {
            Self::Import(spec) => spec.author = Some(author),
            Self::Materialize(spec) => spec.author = Some(author),
            Self::Verify(_) | Self::Export(_) | Self::Publish(_) => {}
        }
        self
    }

    fn kind(&self) -> &dyn Kind {
        match self {
            Self::Import(spec) => spec.as_ref(),
            Self::Verify(spec) => spec,
            Self::Export(spec) => spec.as_ref(),
            Self::Publish(spec) => spec,
            Self::Materialize(spec) => spec,
        }
    }
}

/// What a job came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum JobReport {
    /// What a verification found.
    Verify(ReportInfo),
    /// What an import made.
    Import(ImportReport),
    /// What an export wrote.
    Export(ExportReport),
    /// What a publication did.
    Publish(PublishReport),
    /// What was copied in.
    Materialize(MaterializeReport),
}

/// How a job is going.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum JobState {
    /// It waits until others have ended.
    Queued,
    /// It is being worked on, or will be.
    Running,
    /// It came to its end, which `report` tells.
    Done,
    /// It could not, for the reason `error` tells.
    Failed,
    /// It was cancelled.
    Cancelled,
}

impl JobState {
    /// Its name, as documents have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether it stays as it is.
    pub fn has_ended(self) -> bool {
        match self {
            Self::Queued | Self::Running => false,
            Self::Done | Self::Failed | Self::Cancelled => true,
        }
    }
}

/// Whose rights a job has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// A service was asked for it: any server of the store goes on with it.
    #[default]
    Service,
    /// A command line: it has the rights of whoever gave the command, and servers leave it alone.
    Command,
}

/// How far a job is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ProgressInfo {
    /// Bytes done.
    #[serde(default, alias = "chunk_bytes")]
    pub bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
    /// Stored chunks done.
    pub chunks: u64,
    /// Stored chunks in all, if that is known.
    #[serde(default)]
    pub total_chunks: Option<u64>,
    /// Bytes a second of late; `None` before there is something to tell.
    #[serde(default)]
    pub bytes_per_second: Option<f64>,
    /// Seconds until the end at that rate.
    #[serde(default)]
    pub seconds_left: Option<f64>,
    /// What is being worked on: a file and a variable, for instance.
    #[serde(default)]
    pub current: Option<String>,
}

/// A job, as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Job {
    /// Its id.
    #[schema(value_type = String)]
    pub id: Uuid,
    /// What it does.
    pub spec: JobSpec,
    /// How it is going.
    pub state: JobState,
    /// Whose rights it has.
    #[serde(default)]
    pub begun_by: Origin,
    /// When it was asked for.
    #[schema(value_type = String)]
    pub created: DateTime<Utc>,
    /// When this was written.
    #[schema(value_type = String)]
    pub updated: DateTime<Utc>,
    /// The process that works on it.
    #[schema(value_type = String)]
    pub owner: Uuid,
    /// How far it is.
    pub progress: ProgressInfo,
    /// What it came to.
    pub report: Option<JobReport>,
    /// What is worth a look although it is no failure.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Why it failed.
    pub error: Option<String>,
}

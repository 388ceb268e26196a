//! What an import makes of its sources: groups and arrays, with everything checked but values.

use std::collections::BTreeSet;
use std::sync::Arc;

use array::{ArrayMetadata, GroupMetadata, NodePath};
use codecs::ArrayCodec;
use storage::{Externals, Snapshot, Transaction};

use crate::Error;
use crate::append::Existing;
use crate::blocking::blocking;
use crate::chunking::{self, Wishes};
use crate::compression::{self, Trial};
use crate::fill_arrays::Target;
use crate::import::{ByReference, ImportOptions, Planned};
use crate::joined::{self, Joined, Order};
use crate::kept::{self, Elsewhere};
use crate::origin::Origins;
use crate::reference::{Copied, Original, Referring, divide};
use crate::skip::{Skip, source_path};
use crate::source::Variable;
use crate::zarr::{self, Dropped};

/// What becomes of the files: the groups and arrays to make of them. It depends on the files, the
/// options and the commit it starts from alone.
pub(crate) struct Plan {
    pub(crate) joined: Joined,
    /// Parents first.
    groups: Vec<(NodePath, GroupMetadata)>,
    /// Arrays to fill.
    pub(crate) arrays: Vec<Target>,
    /// Those that refer to the source.
    pub(crate) referring: Arc<Vec<Referring>>,
    /// Paths of all of them.
    pub(crate) paths: Vec<NodePath>,
    pub(crate) copied: Vec<Copied>,
    /// Variables that must equal arrays that exist, and their paths in the files.
    equal: Vec<(NodePath, Variable, String)>,
    pub(crate) dropped: Vec<Dropped>,
    pub(crate) trials: Vec<(NodePath, Vec<Trial>)>,
    /// Codecs of new arrays.
    codecs: Vec<(NodePath, String)>,
}

impl Plan {
    /// The plan over what the transaction starts from, with everything checked but values that are
    /// only read when they are imported.
    pub(crate) async fn checked(
        base: Option<&Snapshot>,
        origins: Origins,
        options: ImportOptions,
    ) -> Result<Self, Error> {
        let existing = match (base, &options.join.append) {
            (Some(base), Some(_)) => Existing::of(base, &options.group).await?.map(Arc::new),
            _ => None,
        };
        let (wanted, there) = (options.clone(), existing.clone());
        let plan = blocking(move || Plan::new(origins, &wanted, there.as_deref())).await?;
        match (existing, base) {
            (Some(existing), _) => plan.check_appended(&existing, &options).await?,
            (None, Some(base)) => plan.check_new(base, &options).await?,
            (None, None) => {}
        }
        Ok(plan)
    }

    pub(crate) fn new(
        origins: Origins,
        options: &ImportOptions,
        existing: Option<&Existing>,
    ) -> Result<Self, Error> {
        let template = existing.map(|existing| &existing.template);
        let joined = joined::join(origins.members, &options.join, &options.skip, template)?;
        let source = joined.source.clone();
        let skip = Skip::new(&source, &options.skip)?;
        let mut plan = Self {
            joined,
            groups: Vec::new(),
            arrays: Vec::new(),
            referring: Arc::default(),
            paths: Vec::new(),
            copied: Vec::new(),
            equal: Vec::new(),
            dropped: Vec::new(),
            trials: Vec::new(),
            codecs: Vec::new(),
        };
        for group in source.groups() {
            let shown = group.path.join("/");
            let mut names = group.path.iter();
            let path = names
                .try_fold(options.group.clone(), |path, name| path.join(name))
                .map_err(|error| no_place(format!("group {shown}"), &error))?;
            let attributes = zarr::attributes(&skip.attributes_left(&shown, &group.attributes));
            let extra = source.reader().group_extra(&group.path);
            let metadata = GroupMetadata { attributes, extra };
            plan.groups.push((path.clone(), metadata));
            for variable in &group.variables {
                let shown = source_path(&group.path, &variable.name);
                if skip.has(&shown) {
                    continue;
                }
                let path = path
                    .join(&variable.name)
                    .map_err(|error| no_place(format!("variable {shown}"), &error))?;
                let mut variable = variable.clone();
                variable.attributes = skip.attributes_left(&shown, &variable.attributes);
                match existing {
                    Some(existing) => plan.existing_array(path, variable, shown, existing)?,
                    None => plan.array(path, variable, options)?,
                }
            }
        }
        check_dimensions(&plan.arrays, options)?;
        plan.paths = plan.arrays.iter().map(|array| array.path.clone()).collect();
        Ok(plan)
    }

    /// Has those arrays refer to the source that can. Blocks.
    pub(crate) fn refer_to(&mut self, original: &Original) {
        let targets = std::mem::take(&mut self.arrays);
        let (referring, arrays, copied) = divide(&self.joined.source, original, targets);
        (self.referring, self.arrays, self.copied) = (Arc::new(referring), arrays, copied);
    }

    /// Whether the source has its chunks in objects of their own.
    pub(crate) fn is_of_objects(&self) -> bool {
        let reader = self.joined.source.reader();
        let mut arrays = self.arrays.iter();
        arrays.any(|array| reader.zarr(&array.variable).is_some())
    }

    /// Has all arrays refer to the objects of a Zarr hierarchy.
    ///
    /// # Errors
    /// [`Error::Option`] if they were to be cut or encoded anew.
    pub(crate) fn refer_to_objects(
        &mut self,
        files: &Externals,
        how: &ByReference,
    ) -> Result<(), Error> {
        for array in &mut self.arrays {
            if !array.keeps_chunks {
                return Err(Error::Option {
                    option: "--by-reference",
                    reason: "chunks stay as they are: leave out --chunks, --shards and --codec"
                        .into(),
                });
            }
            let stored = array.metadata.clone();
            let (elsewhere, referring) = Elsewhere::new(stored, files, how.statistics)?;
            array.codec = ArrayCodec::new(&referring)?;
            array.metadata = referring;
            array.elsewhere = Some(Arc::new(elsewhere));
        }
        Ok(())
    }

    /// The metadata that all arrays get, by path.
    pub(crate) fn new_metadata(&self) -> impl Iterator<Item = (&NodePath, &ArrayMetadata)> {
        let filled = self
            .arrays
            .iter()
            .map(|array| (&array.path, &array.metadata));
        let referring = self.referring.iter();
        filled.chain(referring.map(|array| (&array.path, &array.located.metadata)))
    }

    fn array(
        &mut self,
        path: NodePath,
        variable: Variable,
        options: &ImportOptions,
    ) -> Result<(), Error> {
        let source = self.joined.source.clone();
        let own = source.reader().zarr(&variable);
        if let Some(own) = own
            && kept::keeps_chunks(options)
        {
            let metadata = kept::metadata(own, &variable);
            return self.fill_later(path, variable, metadata, true);
        }
        let wishes = Wishes {
            access: options.access,
            inner: &options.inner_lengths,
            shards: &options.shard_lengths,
            grows: source.grows(&variable),
        };
        let chunking = chunking::advise(&variable, &wishes)?;
        let (compressor, trials) = compression::choose(
            &source,
            &variable,
            &chunking,
            options.codec.unwrap_or_default(),
            options.explain_codec,
        )?;
        let codecs = compressor.codecs(&variable.data_type);
        let metadata = match own {
            Some(own) => kept::cut_anew(own, &variable, &chunking, &codecs)?,
            None => {
                let shown = path.to_string();
                let (metadata, dropped) = zarr::metadata(&shown, &variable, &chunking, &codecs)?;
                self.dropped.extend(dropped);
                metadata
            }
        };
        self.codecs.push((path.clone(), compressor.to_string()));
        if !trials.is_empty() {
            self.trials.push((path.clone(), trials));
        }
        self.fill_later(path, variable, metadata, false)
    }

    fn fill_later(
        &mut self,
        path: NodePath,
        variable: Variable,
        metadata: ArrayMetadata,
        keeps_chunks: bool,
    ) -> Result<(), Error> {
        self.arrays.push(Target {
            codec: ArrayCodec::new(&metadata)?,
            path,
            variable,
            metadata,
            keeps_chunks,
            elsewhere: None,
            appended: None,
        });
        Ok(())
    }

    /// A variable that fits the array at `path`, as joining has checked.
    fn existing_array(
        &mut self,
        path: NodePath,
        variable: Variable,
        shown: String,
        existing: &Existing,
    ) -> Result<(), Error> {
        let dimension = self.joined.dimension.as_deref().unwrap_or_default();
        match existing.extended(&path, dimension, &variable)? {
            Some((metadata, appended)) => {
                let codec = ArrayCodec::new(&metadata)?;
                self.arrays.push(Target {
                    path,
                    variable,
                    metadata,
                    codec,
                    keeps_chunks: false,
                    elsewhere: None,
                    appended: Some(appended),
                });
            }
            None => self.equal.push((path, variable, shown)),
        }
        Ok(())
    }

    /// Checks that what is new goes together with what is there.
    async fn check_appended(
        &self,
        existing: &Existing,
        options: &ImportOptions,
    ) -> Result<(), Error> {
        let appended = self.arrays.iter();
        existing.check_lengths(
            appended.filter_map(|target| Some((&target.path, target.appended.as_ref()?))),
        )?;
        for (path, variable, shown) in &self.equal {
            let units = self.joined.units.get(shown);
            existing
                .check_equal(path, &self.joined, variable, units)
                .await?;
        }
        if options.join.order == Order::Unchecked || options.join.new_dim.is_some() {
            return Ok(());
        }
        for target in &self.arrays {
            let path = target.path.as_str().strip_prefix(options.group.as_str());
            let path = path.unwrap_or_default().trim_start_matches('/');
            let units = self.joined.units.get(path);
            existing
                .check_order(&target.path, &self.joined, &target.variable, units)
                .await?;
        }
        Ok(())
    }

    /// Checks that nothing is in the way of new arrays.
    async fn check_new(&self, base: &Snapshot, options: &ImportOptions) -> Result<(), Error> {
        for array in &self.arrays {
            if base.find(&array.path).await?.is_some() {
                let reason = match &options.join.append {
                    None => "import with --append DIM to make it longer, or into another group",
                    Some(_) => "import into another group",
                };
                let reason = format!("{} exists already: {reason}", array.path);
                return Err(Error::Option {
                    option: "--to",
                    reason,
                });
            }
        }
        Ok(())
    }

    /// Stages the groups and the arrays, still without chunks.
    pub(crate) async fn stage(&self, transaction: &Transaction) -> Result<(), Error> {
        let appends = self.arrays.iter().any(|array| array.appended.is_some());
        for (path, metadata) in &self.groups {
            // The attributes of a group that exists are kept unless the file has its own, which is
            // not more of the same.
            let exists = transaction.base().find(path).await?.is_some();
            if !exists || *metadata != GroupMetadata::default() && !appends {
                transaction.put_group(path, metadata.clone()).await?;
            }
        }
        for array in &self.arrays {
            let metadata = array.metadata.clone();
            match &array.appended {
                None => transaction.create_array(&array.path, metadata).await?,
                Some(appended) => {
                    let engine = &appended.engine;
                    engine
                        .set_metadata(transaction, &array.path, metadata)
                        .await?;
                }
            }
        }
        for array in self.referring.iter() {
            let metadata = array.located.metadata.clone();
            transaction.create_array(&array.path, metadata).await?;
        }
        Ok(())
    }

    pub(crate) fn planned(self) -> Result<Vec<Planned>, Error> {
        let mut planned = Vec::with_capacity(self.arrays.len());
        let mut trials = self.trials.into_iter().peekable();
        let mut codecs = self.codecs.into_iter().peekable();
        for target in self.arrays {
            let tried = trials.next_if(|(path, _)| *path == target.path);
            let trials = tried.map(|(_, trials)| trials).unwrap_or_default();
            let codec = codecs.next_if(|(path, _)| *path == target.path);
            let bytes = target.bytes(&target.variable.shape);
            let chosen = trials.iter().find(|trial| trial.chosen);
            planned.push(Planned {
                objects: target.shards()?.shape().iter().product(),
                data_type: target.variable.data_type.clone(),
                shape: target.metadata.shape().to_vec(),
                inner: target.codec.inner_shape().to_vec(),
                shard: target.codec.chunk_shape().to_vec(),
                appended: target.appended.map(|to| (to.axis, to.start)),
                codec: codec.map(|(_, codec)| codec),
                estimated_bytes: chosen.map(|trial| (bytes as f64 / trial.ratio()) as u64),
                path: target.path,
                bytes,
                trials,
            });
        }
        Ok(planned)
    }
}

fn no_place(what: String, error: &array::Error) -> Error {
    Error::Unsupported {
        what,
        reason: format!("{error}; leave it out with --skip"),
    }
}

/// A length for a dimension that no variable has is a typing error.
fn check_dimensions(targets: &[Target], options: &ImportOptions) -> Result<(), Error> {
    let known: BTreeSet<&str> = targets
        .iter()
        .flat_map(|target| target.variable.dimensions.iter().map(String::as_str))
        .collect();
    for (option, lengths) in [
        ("--chunks", &options.inner_lengths),
        ("--shards", &options.shard_lengths),
    ] {
        if let Some(name) = lengths.0.keys().find(|name| !known.contains(name.as_str())) {
            let known: Vec<&str> = known.into_iter().collect();
            let reason = format!(
                "no variable has a dimension {name:?}; there are {}",
                known.join(", ")
            );
            return Err(Error::Option { option, reason });
        }
    }
    Ok(())
}

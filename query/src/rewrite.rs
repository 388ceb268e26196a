//! Completing manifests: arrays whose statistics are missing or assume other metadata get new ones.

use array::{NodePath, Region};
use futures::{StreamExt as _, TryStreamExt as _};
use storage::{ArrayNode, CommitId, CommitOptions, Node, RefName, Repository, Transaction};

use crate::chunk_statistics;
use crate::engine::Engine;
use crate::{ArrayReader, Error};

/// What was rewritten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rewritten {
    /// Arrays that were not complete.
    pub arrays: u64,
    /// Their chunks.
    pub chunks: u64,
    /// The commit; `None` if everything was complete.
    pub commit: Option<CommitId>,
}

impl Engine {
    /// Computes the statistics of every array at or under `path` that lacks them, as one commit.
    /// Values stay as they are.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if a chunk is damaged; else as [`Transaction::commit`].
    pub async fn rewrite_manifests(
        &self,
        repository: &Repository,
        branch: &RefName,
        path: &NodePath,
        author: &str,
    ) -> Result<Rewritten, Error> {
        let transaction = Transaction::begin(repository, branch).await?;
        let base = transaction.base().clone();
        let mut rewritten = Rewritten::default();
        for node in base.walk(base.node(path).await?).await? {
            if let Node::Array(array) = node
                && array.total_statistics().await?.is_none()
            {
                let chunks = self.complete(&transaction, array).await?;
                rewritten.chunks += chunks;
                rewritten.arrays += u64::from(chunks > 0);
            }
        }
        if rewritten.chunks > 0 {
            let options = CommitOptions {
                author: author.to_owned(),
                message: format!("rewrite manifests of {path}"),
                ..CommitOptions::default()
            };
            rewritten.commit = Some(transaction.commit(options).await?);
        }
        Ok(rewritten)
    }

    /// Gives every chunk of an array its statistics; gives their number, 0 if the array can have
    /// none.
    async fn complete(&self, transaction: &Transaction, node: ArrayNode) -> Result<u64, Error> {
        let array = self.open(node)?;
        let grid = Region::whole(&array.metadata().grid().grid_shape());
        let rows = array.node().chunks(&grid).await?;
        let count = rows.len() as u64;
        let known: Vec<bool> = futures::stream::iter(rows)
            .map(|row| self.complete_chunk(transaction, &array, row))
            .buffer_unordered(self.concurrent_chunks())
            .try_collect()
            .await?;
        let all = known.iter().all(|known| *known);
        Ok(if all { count } else { 0 })
    }

    /// Whether the chunk has statistics now.
    async fn complete_chunk(
        &self,
        transaction: &Transaction,
        array: &ArrayReader,
        row: storage::ChunkRow,
    ) -> Result<bool, Error> {
        let bytes = self.stored_bytes(array, &row, 0..row.length).await?;
        let (codec, node, index) = (array.codec.clone(), array.node().clone(), row.index.clone());
        let chunk = bytes.clone();
        let statistics = self
            .pool
            .run(move || {
                let metadata = node.metadata();
                Ok(chunk_statistics::of_chunk(&codec, metadata, &index, &chunk))
            })
            .await?;
        if statistics.is_none() {
            return Ok(false);
        }
        let parts = (row.index.clone(), row.kind, row.id, bytes);
        transaction
            .put_inner_chunks(
                array.node().path(),
                parts,
                statistics,
                Vec::new(),
                Some(&row),
            )
            .await?;
        Ok(true)
    }
}

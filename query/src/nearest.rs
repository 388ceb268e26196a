//! The rows of a selection that are nearest to given vectors, read piece by piece.
//!
//! ```text
//! rows ─► pieces along the edges of chunks ─► parts, on the pool ─► the nearest of each, merged
//! ```
//!
//! One piece is read while the one before it is searched. Neither pieces nor parts show in what is
//! found ([`compute::nearest`]).

use std::ops::Range;
use std::sync::Arc;

use array::{DataType, Elements, OutputAxis, ResolvedSelection, Tensor};
use compute::cf::{CfDecoder, Decode};
use compute::gpu::FoundSums;
use compute::lanes::{PANEL_BYTES, Sums, Vectors};
use compute::nearest::{self, Neighbours, Queries, Search};
use futures::{StreamExt as _, TryStreamExt as _};

use crate::budget::Reservation;
use crate::cuts::Cuts;
use crate::engine::Engine;
use crate::measure::Role;
use crate::{ArrayReader, Error};

/// A piece is about as large, unless one row or one row of inner chunks is larger.
const PIECE_BYTES: u64 = 16 << 20;
/// And no more than one part in so many of all memory.
const PIECE_SHARE: u64 = 32;
/// Multiplications of one part, at most, unless a single row takes more: some hundredths of a second.
const PART_WORK: u64 = 1 << 25;

impl Engine {
    /// Memory that a search takes, in bytes, of which what it finds is part.
    ///
    /// # Errors
    /// As [`Engine::nearest`].
    pub fn nearest_bytes(
        &self,
        array: &ArrayReader,
        selection: &ResolvedSelection,
        decode: Decode,
        queries: &Queries,
    ) -> Result<u64, Error> {
        let cuts = self.cut_rows(array, selection, decode, queries)?;
        let largest = selection.part(&cuts.largest());
        let piece = self.read_bytes(array, &largest, decode)?;
        // A search for each thread, the whole, and what is made of it.
        let threads = self.pool.threads() as u64;
        let searches = queries.search_bytes().saturating_mul(threads + 2);
        let panels = PANEL_BYTES.saturating_mul(threads);
        let pieces = piece.saturating_mul(2);
        let sums = self.devices.sums_bytes_max();
        let all = [pieces, searches, panels, sums].into_iter();
        Ok(all.fold(0, u64::saturating_add))
    }

    /// The nearest rows of a selection of two dimensions, with memory that was reserved for it, as
    /// [`Engine::nearest_bytes`] tells. Rows are numbered as they are selected.
    ///
    /// # Errors
    /// [`compute::Error::Parameter`] named `slice` or `vectors` if the selection is no matrix or its
    /// rows are not as long as the queries; [`compute::Error::Undefined`] for types that are not
    /// searched; else as [`Engine::read`].
    pub async fn nearest(
        &self,
        array: &ArrayReader,
        selection: &ResolvedSelection,
        decode: Decode,
        queries: &Arc<Queries>,
        _reservation: &Reservation,
    ) -> Result<Neighbours, Error> {
        let mut cuts = self.cut_rows(array, selection, decode, queries)?;
        let mut search = Search::new(queries.clone());
        let mut next = self.piece(array, selection, decode, cuts.next()).await?;
        while let Some((first, tensor)) = next {
            let searched = self.search(tensor, first, queries, &mut search);
            let following = self.piece(array, selection, decode, cuts.next());
            let (searched, following) = futures::future::join(searched, following).await;
            searched?;
            next = following?;
        }
        Ok(search.finish())
    }

    /// The rows of a cut, and the number of the first.
    async fn piece(
        &self,
        array: &ArrayReader,
        selection: &ResolvedSelection,
        decode: Decode,
        cut: Option<Vec<Range<u64>>>,
    ) -> Result<Option<(u64, Tensor)>, Error> {
        let Some(cut) = cut else {
            return Ok(None);
        };
        let (axis, _) = matrix(selection)?;
        let part = selection.part(&cut);
        let tensor = self.read_unreserved(array, &part, decode).await?;
        Ok(Some((cut[axis].start, tensor)))
    }

    /// Searches a piece whose rows are numbered from `first`.
    async fn search(
        &self,
        tensor: Tensor,
        first: u64,
        queries: &Arc<Queries>,
        whole: &mut Search,
    ) -> Result<(), Error> {
        let Elements::Fixed(bytes) = tensor.elements else {
            return Err(Error::Cancelled);
        };
        let row = tensor.data_type.size_bytes().unwrap_or(1) * queries.length();
        let (bytes, data_type) = (Arc::new(bytes), tensor.data_type);
        let count = bytes.len() / row;
        let work = (queries.length() as u64).saturating_mul(queries.count().max(1) as u64);
        let most = (PART_WORK / work.max(1)).max(1) as usize;
        let of_device = self.sums_of(&bytes, &data_type, queries).await?;
        if let Some(found) = of_device
            && let Sums::Floats(sums) = found.sums
        {
            whole.scan_sums(&sums, &found.own_products, first);
            return Ok(());
        }
        // As many parts as there are threads, at least, if they are worth it.
        let most = most.min(count.div_ceil(self.pool.threads()).max(1));
        let parts = (0..count).step_by(most).map(|start| {
            let end = count.min(start + most);
            let (bytes, data_type, queries) = (bytes.clone(), data_type.clone(), queries.clone());
            self.pool.run(move || {
                let mut search = Search::new(queries);
                let rows = &bytes[start * row..end * row];
                search.scan(&data_type, rows, first + start as u64);
                Ok(search)
            })
        });
        let mut done = futures::stream::iter(parts).buffer_unordered(self.pool.threads());
        while let Some(part) = done.try_next().await? {
            whole.merge(part);
        }
        Ok(())
    }

    /// What a device finds of the queries with rows, if one looks at them.
    async fn sums_of(
        &self,
        bytes: &Arc<Vec<u8>>,
        data_type: &DataType,
        queries: &Arc<Queries>,
    ) -> Result<Option<FoundSums>, Error> {
        if self.devices.gpus().is_none() {
            return Ok(None);
        }
        let (devices, threads) = (self.devices.clone(), self.pool.threads());
        let (bytes, data_type) = (bytes.clone(), data_type.clone());
        let queries = queries.clone();
        let work = move || {
            let row = data_type.size_bytes().unwrap_or(1) * queries.length();
            let rows = Vectors::rows(&data_type, &bytes, bytes.len() / row, queries.length());
            let (of, with_norms) = (queries.sum_of(), queries.needs_norms());
            Ok(devices.sums(of, &queries.vectors(), &rows, with_norms, threads))
        };
        self.pool.run(work).await
    }

    /// The selection in pieces of whole rows.
    fn cut_rows(
        &self,
        array: &ArrayReader,
        selection: &ResolvedSelection,
        decode: Decode,
        queries: &Queries,
    ) -> Result<Cuts, Error> {
        let (axis, length) = matrix(selection)?;
        if length != queries.length() as u64 {
            let (found, name) = (queries.length(), "vectors");
            let reason = format!("have {found} elements, the rows of the slice {length}");
            return Err(compute::Error::Parameter { name, reason }.into());
        }
        let metadata = array.metadata();
        let decoder = CfDecoder::new(&metadata.data_type, &metadata.attributes, decode)?;
        let decoded = decoder
            .as_ref()
            .map_or(&metadata.data_type, |d| d.data_type());
        nearest::check(decoded)?;
        let size = decoded.size_bytes().unwrap_or(8) as u64;
        let most =
            PIECE_BYTES.min(self.memory().1 / PIECE_SHARE) / length.saturating_mul(size).max(1);
        let mut roles = vec![Role::Reduced; selection.axes().len()];
        roles[axis] = Role::Kept;
        Ok(Cuts::new(array, selection, &roles, most.max(1)))
    }
}

/// The axis of the array that the rows of a selection are along, and the length of each.
fn matrix(selection: &ResolvedSelection) -> Result<(usize, u64), Error> {
    let [OutputAxis::Array(rows), OutputAxis::Array(elements)] = *selection.output() else {
        let found = selection.output().len();
        let reason = format!(
            "selects {found} dimensions, of which none may be new: rows are searched in two, vectors by their elements"
        );
        let name = "slice";
        return Err(compute::Error::Parameter { name, reason }.into());
    };
    Ok((rows, selection.selected_shape()[elements]))
}

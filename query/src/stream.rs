//! Results that are larger than the memory for them: read piece by piece, in C order.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use array::{DataType, Elements, ResolvedSelection, shape};
use bytes::Bytes;
use compute::cf::{CfDecoder, Decode};
use futures::stream::{Stream, StreamExt as _};
use storage::observation::{self, carried};
use tokio::task::JoinHandle;
use tracing::Instrument as _;

use crate::budget::Reservation;
use crate::cuts::Cuts;
use crate::engine::Engine;
use crate::measure::Role;
use crate::plan::Plan;
use crate::{ArrayReader, Error};

/// A piece is about as large, unless one row of inner chunks is larger: large enough to keep the
/// threads busy.
const PIECE_BYTES: u64 = 16 << 20;
/// Pieces that are read before the one before them is asked for.
const AHEAD: usize = 2;

/// A selection, read in pieces.
pub struct Pieces {
    /// Type of the elements.
    pub data_type: DataType,
    /// Bytes of all of them.
    pub total_bytes: u64,
    pieces: Pin<Box<dyn Stream<Item = Result<Bytes, Error>> + Send>>,
}

impl Stream for Pieces {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.pieces.as_mut().poll_next(context)
    }
}

impl Engine {
    /// Reads a selection of elements of a fixed size in pieces: the elements in C order. Takes the
    /// memory for a few pieces, once, until the stream is dropped; dropping it ends the work.
    ///
    /// # Errors
    /// As [`Engine::read`]; in the stream as well. [`array::Error::Unsupported`] for elements of no
    /// fixed size.
    pub async fn stream(
        &self,
        array: &ArrayReader,
        selection: &ResolvedSelection,
        decode: Decode,
    ) -> Result<Pieces, Error> {
        let metadata = array.metadata();
        let decoder = CfDecoder::new(&metadata.data_type, &metadata.attributes, decode)?;
        let data_type = decoder.map_or(metadata.data_type.clone(), |d| d.data_type().clone());
        let total_bytes = shape::elements(&selection.selected_shape())?
            .checked_mul(data_type.size_bytes().unwrap_or(1) as u64)
            .ok_or(array::Error::TooLarge { what: "result" })?;
        if data_type.is_variable_length() {
            return Err(array::Error::Unsupported {
                what: "stream",
                reason: format!("{data_type} has elements of no fixed size"),
            }
            .into());
        }
        let size = metadata.data_type.size_bytes().unwrap_or(1) as u64;
        let most = PIECE_BYTES.min(self.budget.total_bytes() / 32).max(1) / size.max(1);
        let kept = vec![Role::Kept; selection.axes().len()];
        let cuts = Cuts::new(array, selection, &kept, most.max(1));
        let largest = selection.part(&cuts.largest());
        let plan = Plan::new(largest.clone(), metadata.shape(), &array.codec);
        let piece = self.read_bytes(array, &largest, decode)?;
        let scratch = self.scratch_bytes(array, &plan);
        // One piece is being sent while others are read.
        let sent = piece.saturating_sub(scratch);
        let needed = piece.saturating_mul(AHEAD as u64).saturating_add(sent);
        let reservation = Arc::new(self.reserve(needed).await?);
        let (engine, array, whole) = (self.clone(), array.clone(), selection.clone());
        let pieces = futures::stream::iter(cuts)
            .map(move |cut| {
                let (engine, array) = (engine.clone(), array.clone());
                let (selection, reservation) = (whole.part(&cut), reservation.clone());
                let read = async move {
                    engine
                        .read_piece(&array, &selection, decode, &reservation)
                        .await
                };
                let read = carried(observation::current(), read);
                Task(tokio::spawn(read.in_current_span()))
            })
            .buffered(AHEAD);
        Ok(Pieces {
            data_type,
            total_bytes,
            pieces: Box::pin(pieces),
        })
    }

    async fn read_piece(
        &self,
        array: &ArrayReader,
        selection: &ResolvedSelection,
        decode: Decode,
        reservation: &Reservation,
    ) -> Result<Bytes, Error> {
        let tensor = self
            .read_within(array, selection, decode, reservation)
            .await?;
        match tensor.elements {
            Elements::Fixed(bytes) => Ok(bytes.into()),
            Elements::Variable(_) => Err(Error::Cancelled),
        }
    }
}

/// Work of its own, so that a reader who is slow holds up nobody who waits for the same chunks; ends
/// when it is dropped.
struct Task<T>(JoinHandle<Result<T, Error>>);

impl<T> Future for Task<T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let result = Pin::new(&mut self.0).poll(context);
        result.map(|done| done.unwrap_or(Err(Error::Cancelled)))
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

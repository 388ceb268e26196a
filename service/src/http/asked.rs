//! What requests for values have in common: an array, what of it is selected, and how the answer is
//! written and sent.

use std::time::Instant;

use array::{Bounds, NodePath, OutputAxis, ResolvedSelection, Selection, Tensor, shape};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use axum::response::Response;
use compute::cf::{CfDecoder, Decode};
use compute::labels::{Coordinate, Labels};
use compute::predicate::Predicate;
use compute::{Condition, predicate};
use query::{ArrayReader, Reservation};
use storage::observation::note;
use storage::{ArrayNode, Node, TRACE, Transaction};
use tracing::{Instrument as _, debug_span};

use super::answer::{Caching, Coding, Representation};
use super::held::HeldMemory;
use crate::auth::Scope;
use crate::error::Failure;
use crate::format::{Answer, Format, Options, Variable, remaining_attributes};
use crate::state::{Pinned, State, node_path};

/// Query parameters that reads and reductions have in common.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Common<'a> {
    pub(crate) slice: Option<&'a str>,
    pub(crate) strict: Option<bool>,
    pub(crate) decode: Option<&'a str>,
    pub(crate) f: Option<&'a str>,
    pub(crate) colormap: Option<&'a str>,
    pub(crate) range: Option<&'a str>,
    /// `sel.<dimension>=…`, by dimension.
    pub(crate) labels: &'a [(String, String)],
    /// `where=`.
    pub(crate) condition: Option<&'a str>,
}

/// Where arrays are looked up. What may not be seen is not there.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    Snapshot(&'a Pinned),
    Transaction(&'a Transaction, &'a Scope),
}

impl Source<'_> {
    async fn find(&self, path: &NodePath) -> Result<Option<ArrayNode>, Failure> {
        let scope = match self {
            Self::Snapshot(pinned) => &pinned.scope,
            Self::Transaction(_, scope) => scope,
        };
        if !scope.contains(path) {
            return Ok(None);
        }
        let node = match self {
            Self::Snapshot(pinned) => pinned.snapshot.find(path).await?,
            Self::Transaction(transaction, _) => transaction.find(path).await?,
        };
        Ok(match node {
            Some(Node::Array(array)) => Some(array),
            _ => None,
        })
    }
}

/// An array and what of it is asked for.
pub(crate) struct Asked<'a> {
    pub(crate) state: &'a State,
    pub(crate) source: Source<'a>,
    pub(crate) array: ArrayReader,
    pub(crate) selection: ResolvedSelection,
    pub(crate) decode: Decode,
    pub(crate) conditions: Vec<(ArrayReader, Predicate)>,
    pub(crate) format: Format,
    options: Options,
    coding: Coding,
    condition: Option<String>,
}

/// Elements of fewer bytes are written at once; more are written where other requests need not wait.
const MIN_BLOCKING_BYTES: usize = 64 << 10;

impl<'a> Asked<'a> {
    /// Of a commit.
    pub(crate) async fn of_commit(
        state: &'a State,
        pinned: &'a Pinned,
        path: &str,
        headers: &HeaderMap,
        common: Common<'_>,
    ) -> Result<Self, Failure> {
        let node = pinned.snapshot.array(&node_path(path)?).await;
        let node = pinned.settle(node.map_err(Failure::from)).await?;
        let source = Source::Snapshot(pinned);
        pinned
            .settle(Self::new(state, source, node, headers, common).await)
            .await
    }

    pub(crate) async fn new(
        state: &'a State,
        source: Source<'a>,
        node: ArrayNode,
        headers: &HeaderMap,
        common: Common<'_>,
    ) -> Result<Self, Failure> {
        let (started, span) = (Instant::now(), debug_span!(target: TRACE, "plan"));
        let planning = Self::plan(state, source, node, headers, common);
        let asked = planning.instrument(span).await?;
        note(|observation| observation.planned(started.elapsed()));
        Ok(asked)
    }

    async fn plan(
        state: &'a State,
        source: Source<'a>,
        node: ArrayNode,
        headers: &HeaderMap,
        common: Common<'_>,
    ) -> Result<Self, Failure> {
        let accept = headers
            .get(header::ACCEPT)
            .and_then(|accept| accept.to_str().ok());
        let format = Format::negotiate(common.f, accept)?;
        let decode = parse_decode(common.decode)?;
        let selection: Selection = common.slice.unwrap_or("").parse()?;
        let array = state.engine().open(node)?;
        let bounds = match common.strict {
            Some(true) => Bounds::Strict,
            _ => Bounds::Clamp,
        };
        let mut asked = Self {
            state,
            source,
            selection: selection.resolve(array.metadata().shape(), bounds)?,
            array,
            decode,
            conditions: Vec::new(),
            format,
            options: Options::new(format, common.colormap, common.range)?,
            coding: Coding::negotiate(headers, format),
            condition: common.condition.map(str::to_owned),
        };
        asked.select_labels(common.labels).await?;
        if let Some(condition) = common.condition {
            asked.conditions = asked.conditions_of(&condition.parse()?).await?;
        }
        let (chunks, limit) = (
            asked.array.inner_chunks_at_most(&asked.selection),
            state.limits().chunks,
        );
        if chunks > limit {
            let detail = format!(
                "the slice touches up to {chunks} inner chunks, the most in one answer is {limit}: ask for parts of it with slice="
            );
            return Err(Failure::too_large(limit, detail));
        }
        Ok(asked)
    }

    /// The axis of the array that a dimension name means.
    pub(crate) fn axis(&self, parameter: &str, name: &str) -> Result<usize, Failure> {
        let names = self.array.metadata().dimension_names().unwrap_or_default();
        let is_named = |known: &&Option<String>| known.as_deref() == Some(name);
        if names.iter().filter(is_named).count() > 1 {
            let detail = format!("{name:?} names several dimensions");
            return Err(Failure::bad_request(parameter, detail));
        }
        names
            .iter()
            .position(|known| known.as_deref() == Some(name))
            .ok_or_else(|| {
                let known: Vec<&str> = names.iter().flatten().map(String::as_str).collect();
                let detail = format!(
                    "{name:?} is no dimension of the array; it has {}",
                    known.join(", ")
                );
                Failure::bad_request(parameter, detail)
            })
    }

    async fn select_labels(&mut self, labels: &[(String, String)]) -> Result<(), Failure> {
        for (dimension, text) in labels {
            let parameter = format!("sel.{dimension}");
            let axis = self.axis(&parameter, dimension)?;
            let whole = ResolvedSelection::whole(self.array.metadata().shape());
            if self.selection.axes()[axis] != whole.axes()[axis] {
                let detail = format!("{dimension} is selected by slice= as well: use one of them");
                return Err(Failure::bad_request(&parameter, detail));
            }
            let Some(coordinate) = self.coordinate(axis).await? else {
                let detail = format!(
                    "there is no coordinate variable {dimension:?} beside or above the array: select positions with slice="
                );
                return Err(Failure::bad_request(&parameter, detail));
            };
            let labels: Labels = text.parse()?;
            self.selection = self.selection.with_axis(axis, coordinate.select(&labels)?);
        }
        Ok(())
    }

    /// The array of one dimension that holds the coordinates of an axis: named like the dimension, in
    /// the array's group or one above it.
    pub(crate) async fn coordinate_array(
        &self,
        axis: usize,
    ) -> Result<Option<ArrayReader>, Failure> {
        let metadata = self.array.metadata();
        let name = metadata
            .dimension_names()
            .and_then(|names| names.get(axis)?.clone());
        let Some(name) = name else {
            return Ok(None);
        };
        let mut folder = self.array.node().path().parent();
        while let Some(group) = folder {
            folder = group.parent();
            let Ok(path) = group.join(&name) else {
                return Ok(None);
            };
            let Some(found) = self.source.find(&path).await? else {
                continue;
            };
            let shape = found.metadata().shape();
            let dimensions = found.metadata().dimension_names().unwrap_or_default();
            if *shape == [metadata.shape()[axis]] && *dimensions == [Some(name.clone())] {
                return Ok(Some(self.state.engine().open(found)?));
            }
        }
        Ok(None)
    }

    /// The coordinate of an axis; `None` if it has none.
    pub(crate) async fn coordinate(
        &self,
        axis: usize,
    ) -> Result<Option<std::sync::Arc<Coordinate>>, Failure> {
        let Some(array) = self.coordinate_array(axis).await? else {
            return Ok(None);
        };
        let node = array.node();
        let key = (node.document_hash(), node.manifest_root());
        let is_pinned = matches!(self.source, Source::Snapshot(_));
        if let Some(known) = self.state.coordinates().get(&key).filter(|_| is_pinned) {
            return Ok(Some(known));
        }
        let whole = ResolvedSelection::whole(node.metadata().shape());
        let tensor = self.read_values(&array, &whole, Decode::Cf).await?;
        let attributes = &node.metadata().attributes;
        let coordinate = Coordinate::new(node.path().name(), tensor, attributes)?;
        let coordinate = std::sync::Arc::new(coordinate);
        if is_pinned {
            self.state.coordinates().insert(key, coordinate.clone());
        }
        Ok(Some(coordinate))
    }

    /// The values of a selection, if they are not too many.
    pub(crate) async fn read_values(
        &self,
        array: &ArrayReader,
        selection: &ResolvedSelection,
        decode: Decode,
    ) -> Result<Tensor, Failure> {
        let element = array.metadata().data_type.size_bytes().unwrap_or(32) as u64;
        check_size(self.state, &selection.selected_shape(), element.max(8))?;
        Ok(self.state.engine().read(array, selection, decode).await?)
    }

    /// The array that a parameter names: beside this one, or by its path.
    pub(crate) async fn other(&self, parameter: &str, name: &str) -> Result<ArrayReader, Failure> {
        if name == self.array.node().path().name() {
            return Ok(self.array.clone());
        }
        let beside = self
            .array
            .node()
            .path()
            .parent()
            .unwrap_or_else(NodePath::root);
        let mut found = None;
        if !name.contains('/') {
            found = self.source.find(&beside.join(name)?).await?;
        }
        if found.is_none() {
            found = self
                .source
                .find(&node_path(name.trim_start_matches('/'))?)
                .await?;
        }
        match found {
            Some(node) => Ok(self.state.engine().open(node)?),
            None => {
                let detail =
                    format!("there is no array {name:?} beside this one, nor at that path");
                Err(Failure::bad_request(parameter, detail))
            }
        }
    }

    async fn conditions_of(
        &self,
        condition: &Condition,
    ) -> Result<Vec<(ArrayReader, Predicate)>, Failure> {
        let mut conditions = Vec::new();
        for (name, predicate) in &condition.terms {
            let array = self.other("where", name).await?;
            let (own, other) = (self.array.metadata(), array.metadata());
            let is_alike =
                own.shape() == other.shape() && own.dimension_names() == other.dimension_names();
            if !is_alike {
                let detail = format!("{name:?} has other dimensions than the array");
                return Err(Failure::bad_request("where", detail));
            }
            conditions.push((array, predicate.clone()));
        }
        Ok(conditions)
    }

    /// Type of the elements of a read.
    fn read_type(&self) -> Result<array::DataType, Failure> {
        let metadata = self.array.metadata();
        let decoder = CfDecoder::new(&metadata.data_type, &metadata.attributes, self.decode)?;
        let decoded = decoder
            .as_ref()
            .map_or(&metadata.data_type, CfDecoder::data_type);
        Ok(match self.conditions.is_empty() {
            true => decoded.clone(),
            false => Predicate::data_type(decoded)?,
        })
    }

    /// Bytes of the answer to a read, at most.
    ///
    /// # Errors
    /// 413 if they are too many for one that is made before it is sent.
    pub(crate) fn check_answer(&self) -> Result<u64, Failure> {
        let shape = self.selection.output_shape();
        let element = self.format.element_bytes(&self.read_type()?, shape.len());
        check_size(self.state, &shape, element)?;
        Ok(shape::elements(&shape)
            .unwrap_or(u64::MAX)
            .saturating_mul(element))
    }

    /// Whether an answer to a read is sent while it is read.
    pub(crate) fn is_streamed(&self, headers: &HeaderMap) -> Result<bool, Failure> {
        let is_plain = self.format == Format::OctetStream
            && self.conditions.is_empty()
            && !self.array.metadata().data_type.is_variable_length()
            && !headers.contains_key(header::RANGE);
        let element = self.read_type()?.size_bytes().unwrap_or(1) as u64;
        let cells = shape::elements(&self.selection.output_shape()).unwrap_or(u64::MAX);
        Ok(is_plain && cells.saturating_mul(element) > STREAM_ABOVE_BYTES)
    }

    /// The selected values, and the memory they and the answer made of them take.
    pub(crate) async fn read(&self) -> Result<(Tensor, Reservation), Failure> {
        let answer = self.check_answer()?;
        let engine = self.state.engine();
        let conditions = 1 + self.conditions.len() as u64;
        let needed = engine.read_bytes(&self.array, &self.selection, self.decode)?;
        let needed = needed.saturating_mul(conditions).saturating_add(answer);
        let reservation = engine.reserve(needed).await?;
        let (selection, decode) = (&self.selection, self.decode);
        let mut tensor = engine
            .read_within(&self.array, selection, decode, &reservation)
            .await?;
        if self.conditions.is_empty() {
            return Ok((tensor, reservation));
        }
        let cells = shape::elements(&tensor.shape)? as usize;
        let mut mask = vec![true; cells];
        for (array, predicate) in &self.conditions {
            let other = engine
                .read_within(array, selection, decode, &reservation)
                .await?;
            if let array::Elements::Fixed(bytes) = &other.elements {
                predicate.mask(&other.data_type, bytes, &mut mask)?;
            }
        }
        if let array::Elements::Fixed(bytes) = &tensor.elements {
            let (data_type, bytes) = predicate::masked(&tensor.data_type, bytes, &mask)?;
            tensor.elements = array::Elements::Fixed(bytes);
            tensor.data_type = data_type;
        }
        Ok((tensor, reservation))
    }

    /// Names of the dimensions of the slice's result.
    pub(crate) fn dimensions(&self) -> Vec<Option<String>> {
        let names = self.array.metadata().dimension_names();
        let name = |axis: &OutputAxis| match axis {
            OutputAxis::Array(axis) => names.and_then(|names| names[*axis].clone()),
            OutputAxis::New => None,
        };
        self.selection.output().iter().map(name).collect()
    }

    /// The coordinates of these axes as selected, for formats that hold them.
    pub(crate) async fn coordinates(
        &self,
        axes: impl Iterator<Item = usize>,
    ) -> Result<Vec<Variable>, Failure> {
        let mut coordinates = Vec::new();
        if !self.format.holds_coordinates() {
            return Ok(coordinates);
        }
        for axis in axes {
            let Some(array) = self.coordinate_array(axis).await? else {
                continue;
            };
            let selected = self.selection.axes()[axis].clone();
            let selected = ResolvedSelection::of_axes(vec![selected]);
            let tensor = self.read_values(&array, &selected, Decode::Cf).await?;
            let metadata = array.metadata();
            let is_vector = tensor.shape.len() == 1;
            coordinates.push(Variable {
                name: array.node().path().name().to_owned(),
                dimensions: metadata.dimension_names().unwrap_or_default()
                    [..usize::from(is_vector)]
                    .to_vec(),
                tensor,
                attributes: remaining_attributes(&metadata.attributes, true, true),
            });
        }
        Ok(coordinates)
    }

    pub(crate) fn caching(&self, pinned: &Pinned, uri: &Uri, parts: &[&str]) -> Caching {
        let selection = self.selection.canonical();
        let mut named = vec![selection.as_str(), self.format.media_type()];
        let decode = format!("{:?}", self.decode);
        named.push(&decode);
        let options = format!("{:?}", self.options);
        if self.options != Options::default() {
            named.push(&options);
        }
        if let Some(condition) = &self.condition {
            named.extend(["where", condition]);
        }
        named.extend(parts);
        Caching::new(pinned, uri, &named).coded(self.coding)
    }

    /// A variable with the array's attributes, if they hold for its elements.
    pub(crate) fn variable(
        &self,
        name: &str,
        tensor: Tensor,
        dimensions: Vec<Option<String>>,
        has_attributes: bool,
    ) -> Result<Variable, Failure> {
        let metadata = self.array.metadata();
        let decoder = CfDecoder::new(&metadata.data_type, &metadata.attributes, self.decode)?;
        let is_masked = decoder.is_some() && self.decode != Decode::Raw;
        let is_scaled = decoder.is_some() && self.decode == Decode::Cf;
        let attributes = match has_attributes {
            true => remaining_attributes(&metadata.attributes, is_masked, is_scaled),
            false => serde_json::Map::new(),
        };
        Ok(Variable {
            name: name.to_owned(),
            dimensions,
            tensor,
            attributes,
        })
    }

    /// The array's own name.
    pub(crate) fn name(&self) -> String {
        self.array.node().path().name().to_owned()
    }

    /// Writes and sends an answer; the memory it takes is given back when it is sent.
    pub(crate) async fn send(
        &self,
        answer: Answer,
        reservation: Reservation,
        caching: &Caching,
        headers: &HeaderMap,
    ) -> Result<Response, Failure> {
        let tensor = match &answer.variables[..] {
            [variable] => {
                let tensor = &variable.tensor;
                let text = Format::tensor_header(&tensor.data_type, &tensor.shape);
                HeaderValue::from_str(&text).ok()
            }
            _ => None,
        };
        let variables = answer.variables.iter();
        let bytes: usize = variables.map(|v| v.tensor.elements.size_bytes()).sum();
        let (format, options, coding) = (self.format, self.options.clone(), self.coding);
        let memory = HeldMemory::new(reservation);
        let held = memory.clone();
        let write = move || {
            let bytes = held.by(format.encode(answer, &options)?);
            let representation = Representation::coded(format.media_type(), bytes, coding);
            Ok::<_, Failure>(representation)
        };
        let started = Instant::now();
        let representation = if bytes < MIN_BLOCKING_BYTES {
            write()?
        } else {
            let written = tokio::task::spawn_blocking(write).await;
            written.map_err(|error| Failure::broken(error.to_string()))??
        };
        note(|observation| observation.encoded(started.elapsed()));
        let mut response = representation.response(caching, headers)?;
        response.extensions_mut().insert(memory);
        if let Some(tensor) = tensor {
            let name = HeaderName::from_static("tensor");
            response.headers_mut().insert(name, tensor);
        }
        Ok(response)
    }
}

/// A longer result is sent while it is read.
const STREAM_ABOVE_BYTES: u64 = 8 << 20;

fn parse_decode(decode: Option<&str>) -> Result<Decode, Failure> {
    match decode {
        None | Some("cf") => Ok(Decode::Cf),
        Some("mask") => Ok(Decode::Mask),
        Some("raw") => Ok(Decode::Raw),
        Some(other) => Err(Failure::bad_request(
            "decode",
            format!("{other:?} is none of cf, mask, raw"),
        )),
    }
}

pub(crate) fn check_expected(expected: Option<&str>, found: &[u64]) -> Result<(), Failure> {
    let Some(expected) = expected else {
        return Ok(());
    };
    let lengths: Result<Vec<u64>, _> = expected
        .split(',')
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .map(str::parse)
        .collect();
    let lengths = lengths
        .map_err(|_| Failure::bad_request("expected_shape", format!("{expected:?} is no shape")))?;
    if lengths == found {
        return Ok(());
    }
    Err(Failure::precondition(
        "expected_shape",
        format!("the answer has shape {found:?}, not {lengths:?}"),
    ))
}

pub(crate) fn check_size(
    state: &State,
    lengths: &[u64],
    element_bytes: u64,
) -> Result<(), Failure> {
    let limit = state.limits().answer_bytes;
    let bytes = shape::elements(lengths)
        .ok()
        .and_then(|count| count.checked_mul(element_bytes));
    match bytes {
        Some(bytes) if bytes <= limit => Ok(()),
        _ => {
            let asked = bytes.map_or("over 2^64".to_owned(), |bytes| bytes.to_string());
            let detail = format!(
                "shape {lengths:?} is {asked} bytes, the most in one answer is {limit}: ask for parts of it with slice="
            );
            Err(Failure::too_large(limit, detail))
        }
    }
}

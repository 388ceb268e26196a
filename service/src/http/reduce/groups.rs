//! Groups and windows along dimensions.

use array::{DataType, Elements, ResolvedSelection, Tensor, VariableElements};
use compute::cf::Decode;
use query::Grouping;

use super::measures::bytes_of;
use crate::error::Failure;
use crate::format::Variable;
use crate::http::asked::Asked;

/// The groups along a dimension: its axis, which group each selected position is in, and their
/// labels.
pub(super) async fn group(
    asked: &Asked<'_>,
    text: &str,
) -> Result<(usize, Grouping, Variable), Failure> {
    let (dimension, component) = text.split_once('.').unwrap_or((text, ""));
    let axis = asked.axis("groupby", dimension)?;
    let Some(coordinate) = asked.coordinate(axis).await? else {
        let detail =
            format!("there is no coordinate variable {dimension:?} beside or above the array");
        return Err(Failure::bad_request("groupby", detail));
    };
    let groups = coordinate.group(component)?;
    let selected = &asked.selection.axes()[axis];
    let of = (0..selected.len()).map(|nth| groups.of[selected.position(nth) as usize]);
    let mut of: Vec<u32> = of.collect();
    // Only groups of which something is selected.
    let mut present: Vec<u32> = of.clone();
    present.sort_unstable();
    present.dedup();
    present.retain(|group| (*group as usize) < groups.len());
    for group in &mut of {
        *group = present
            .binary_search(group)
            .map_or(u32::MAX, |nth| nth as u32);
    }
    let labels = Variable {
        name: groups.name.clone(),
        dimensions: vec![Some(groups.name)],
        tensor: pick(&groups.labels, &present),
        attributes: serde_json::Map::new(),
    };
    let groups = present.len();
    Ok((axis, Grouping { groups, of }, labels))
}

/// These elements of a vector.
fn pick(vector: &Tensor, places: &[u32]) -> Tensor {
    let elements = match &vector.elements {
        Elements::Fixed(bytes) => {
            let size = vector.data_type.size_bytes().unwrap_or(1);
            let element = |&at: &u32| &bytes[at as usize * size..][..size];
            Elements::Fixed(places.iter().flat_map(element).copied().collect())
        }
        Elements::Variable(elements) => {
            let element = |&at: &u32| elements.get(at as usize).unwrap_or_default();
            Elements::Variable(places.iter().map(element).collect::<VariableElements>())
        }
    };
    Tensor {
        data_type: vector.data_type.clone(),
        shape: vec![places.len() as u64],
        elements,
    }
}

/// Windows of so many cells along an axis.
pub(super) fn windows(
    asked: &Asked<'_>,
    axis: usize,
    dimension: &str,
    window: u64,
    boundary: Option<&str>,
) -> Result<Grouping, Failure> {
    let parameter = format!("coarsen.{dimension}");
    let length = asked.selection.axes()[axis].len();
    if window == 0 {
        return Err(Failure::bad_request(
            &parameter,
            "a window has at least one cell",
        ));
    }
    let whole = length / window;
    let groups = match boundary {
        None | Some("exact") if !length.is_multiple_of(window) => {
            let detail = format!(
                "{length} cells are not whole windows of {window}: add boundary=trim or boundary=pad"
            );
            return Err(Failure::bad_request(&parameter, detail));
        }
        None | Some("exact" | "trim") => whole,
        Some("pad") => length.div_ceil(window),
        Some(other) => {
            let detail = format!("{other:?} is none of exact, trim, pad");
            return Err(Failure::bad_request("boundary", detail));
        }
    };
    let of = (0..length).map(|nth| match nth / window {
        group if group < groups => u32::try_from(group).unwrap_or(u32::MAX),
        _ => u32::MAX,
    });
    Ok(Grouping {
        groups: usize::try_from(groups).unwrap_or(usize::MAX),
        of: of.collect(),
    })
}

/// The means of the coordinates in each window.
pub(super) async fn window_labels(
    asked: &Asked<'_>,
    axis: usize,
    grouping: &Grouping,
) -> Result<Option<Variable>, Failure> {
    if !asked.format.holds_coordinates() {
        return Ok(None);
    }
    let Some(array) = asked.coordinate_array(axis).await? else {
        return Ok(None);
    };
    let selected = ResolvedSelection::of_axes(vec![asked.selection.axes()[axis].clone()]);
    let tensor = asked.read_values(&array, &selected, Decode::Cf).await?;
    let Some(numbers) = compute::numbers(&tensor.data_type, bytes_of(&tensor)) else {
        return Ok(None);
    };
    let mut sums = vec![(0.0, 0.0); grouping.groups];
    for (group, number) in grouping.of.iter().zip(numbers) {
        if let Some((sum, count)) = sums.get_mut(*group as usize) {
            *sum += number;
            *count += 1.0;
        }
    }
    let means = sums
        .iter()
        .flat_map(|(sum, count): &(f64, f64)| (sum / count).to_le_bytes());
    let name = array.node().path().name();
    let mut labels = vector(name, name, DataType::Float64, means.collect());
    let attributes = &array.metadata().attributes;
    labels.attributes = crate::format::remaining_attributes(attributes, true, true);
    Ok(Some(labels))
}

/// A variable of one dimension without attributes.
pub(super) fn vector(name: &str, dimension: &str, data_type: DataType, bytes: Vec<u8>) -> Variable {
    let length = bytes.len() / data_type.size_bytes().unwrap_or(8);
    Variable {
        name: name.to_owned(),
        dimensions: vec![Some(dimension.to_owned())],
        tensor: Tensor {
            data_type,
            shape: vec![length as u64],
            elements: Elements::Fixed(bytes),
        },
        attributes: serde_json::Map::new(),
    }
}

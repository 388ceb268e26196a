//! Products of two slices.

use std::sync::Arc;

use array::{Bounds, OutputAxis, Selection};
use axum::extract::OriginalUri;
use axum::http::HeaderMap;
use axum::response::Response;
use query::{Factor, Product};
use serde::Deserialize;

use super::answer::Caching;
use super::asked::{Asked, Common, check_expected, check_size};
use super::extract::{Labelled, Path, Shared};
use crate::error::{Failure, Problem};
use crate::format::Answer;
use crate::state::State;

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ProductQuery {
    /// What of the array, as NumPy indexes: `0:10,:,5`. All if left out.
    slice: Option<String>,
    /// The other factor: an array beside this one, or its path.
    with: String,
    /// What of it, as `slice`. All if left out.
    with_slice: Option<String>,
    /// The dimension of the slice to multiply along, by number or name: a tensor times a matrix. The
    /// product of two matrices if left out.
    axis: Option<String>,
    /// Refuse slices that reach past an array instead of cutting them off.
    strict: Option<bool>,
    /// The shape the answer must have, like `3,4`; 412 otherwise.
    expected_shape: Option<String>,
    /// `cf` (masked, scaled and offset; the default), `mask`, or `raw`, for both.
    decode: Option<String>,
    /// `octet-stream` (the default), `npy`, `json`, `arrow`, `csv`, `netcdf` or `png`.
    f: Option<String>,
}

/// Multiplies two slices: as NumPy's `matmul`, or along an axis.
#[utoipa::path(get, path = "/v1/repos/{repository}/refs/{reference}/product/{path}",
    params(("repository" = String, Path), ("reference" = String, Path), ("path" = String, Path), ProductQuery,
        ("sel.{dimension}" = Option<String>, Query, description = "Labels along a dimension, by its coordinate variable: `2020-01-01/2020-01-31`, `850,500`, `nearest::12.3`")),
    responses(
        (status = 200, content((Vec<u8> = "application/octet-stream"), (Vec<u8> = "application/x-npy"), (Object = "application/json"),
            (Vec<u8> = "application/vnd.apache.arrow.stream"), (String = "text/csv"), (Vec<u8> = "application/x-netcdf"), (Vec<u8> = "image/png"))),
        (status = 206, content_type = "application/octet-stream", body = Vec<u8>), (status = 304), (status = 400, body = Problem), (status = 404, body = Problem), (status = 406, body = Problem),
        (status = 412, body = Problem), (status = 413, body = Problem), (status = 416, body = Problem), (status = 422, body = Problem), (status = 503, body = Problem)))]
pub(crate) async fn multiply(
    Shared(state): Shared<State>,
    Path((repository, reference, path)): Path<(String, String, String)>,
    query: Labelled<ProductQuery>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let fixed = &query.fixed;
    let common = Common {
        slice: fixed.slice.as_deref(),
        strict: fixed.strict,
        decode: fixed.decode.as_deref(),
        f: fixed.f.as_deref(),
        labels: &query.labels,
        ..Common::default()
    };
    let pinned = state.snapshot(&repository, &reference).await?;
    let asked = Asked::of_commit(&state, &pinned, &path, &headers, common).await?;
    let planned = plan(&asked, fixed).await;
    let planned = pinned.settle(planned).await?;
    let Planned {
        product,
        along,
        dimensions,
        axes,
    } = planned;
    check_expected(fixed.expected_shape.as_deref(), product.shape())?;
    let element = asked
        .format
        .element_bytes(product.data_type(), product.shape().len());
    check_size(&state, product.shape(), element)?;
    let right = product.right();
    let parts = [
        "product",
        right.array.node().path().as_str(),
        &right.selection.canonical(),
        &format!("{along:?}"),
    ];
    let caching = match state.engine().devices().is_relaxed() {
        // The last bits depend on who computes it: no two answers need be the same.
        true => Caching::none(),
        false => asked.caching(&pinned, &uri, &parts),
    };
    if let Some(response) = caching.not_modified(&headers) {
        return Ok(response);
    }
    let engine = state.engine();
    let cells = array::shape::elements(product.shape()).unwrap_or(u64::MAX);
    let needed = engine.product_bytes(&product)?;
    let needed = needed.saturating_add(cells.saturating_mul(element));
    let reservation = engine.reserve(needed).await?;
    let tensor = engine.product(&Arc::new(product), &reservation).await;
    let tensor = pinned.settle(tensor.map_err(Failure::from)).await?;
    let coordinates = pinned.settle(asked.coordinates(axes.into_iter()).await);
    let answer = Answer {
        coordinates: coordinates.await?,
        variables: vec![asked.variable(&asked.name(), tensor, dimensions, false)?],
    };
    asked.send(answer, reservation, &caching, &headers).await
}

/// A product, the dimension of the slice it is along, the names of its own dimensions, and the axes of
/// the array that it still has.
struct Planned {
    product: Product,
    along: Option<usize>,
    dimensions: Vec<Option<String>>,
    axes: Vec<usize>,
}

async fn plan(asked: &Asked<'_>, query: &ProductQuery) -> Result<Planned, Failure> {
    let array = asked.other("with", &query.with).await?;
    let wrong = |error: array::Error| Failure::from(error).about("with_slice");
    let selection: Selection = query
        .with_slice
        .as_deref()
        .unwrap_or("")
        .parse()
        .map_err(wrong)?;
    let bounds = match query.strict {
        Some(true) => Bounds::Strict,
        _ => Bounds::Clamp,
    };
    let selection = selection
        .resolve(array.metadata().shape(), bounds)
        .map_err(wrong)?;
    let (chunks, limit) = (
        array.inner_chunks_at_most(&selection),
        asked.state.limits().chunks,
    );
    if chunks > limit {
        let detail = format!(
            "with_slice touches up to {chunks} inner chunks, the most in one answer is {limit}: ask for parts of it"
        );
        return Err(Failure::too_large(limit, detail).about("with_slice"));
    }
    let along = query
        .axis
        .as_deref()
        .map(|name| axis(name, &asked.dimensions()))
        .transpose()?;
    let names = array.metadata().dimension_names();
    let mut others = selection.output().iter().map(|output| match output {
        OutputAxis::Array(axis) => names.and_then(|names| names[*axis].clone()),
        OutputAxis::New => None,
    });
    let mut dimensions = asked.dimensions();
    let mut outputs = asked.selection.output().to_vec();
    match along {
        // The rows of the matrix take the place of the dimension.
        Some(axis) => {
            dimensions[axis] = others.next().flatten();
            outputs[axis] = OutputAxis::New;
        }
        None => {
            dimensions.pop();
            outputs.pop();
            dimensions.extend(others.skip(1));
        }
    }
    let axes = outputs.into_iter().filter_map(|output| match output {
        OutputAxis::Array(axis) => Some(axis),
        OutputAxis::New => None,
    });
    let (left, right) = (
        Factor {
            array: asked.array.clone(),
            selection: asked.selection.clone(),
        },
        Factor { array, selection },
    );
    Ok(Planned {
        axes: axes.collect(),
        product: Product::new(left, right, along, asked.decode)?,
        along,
        dimensions: unique(dimensions),
    })
}

/// The dimension of the slice that a number or a name means.
fn axis(text: &str, dimensions: &[Option<String>]) -> Result<usize, Failure> {
    let named: Vec<usize> = (0..dimensions.len())
        .filter(|&at| dimensions[at].as_deref() == Some(text))
        .collect();
    let numbered = || {
        let number: i64 = text.parse().ok()?;
        let count = i64::try_from(dimensions.len()).ok()?;
        let number = if number < 0 {
            number.checked_add(count)?
        } else {
            number
        };
        usize::try_from(number)
            .ok()
            .filter(|&at| at < dimensions.len())
    };
    match named[..] {
        [at] => Ok(at),
        [] => numbered().ok_or_else(|| {
            let known: Vec<&str> = dimensions.iter().flatten().map(String::as_str).collect();
            let detail = format!(
                "{text:?} is none of the {} dimensions of the slice, which have the names {known:?}",
                dimensions.len()
            );
            Failure::bad_request("axis", detail)
        }),
        _ => {
            let detail = format!("{text:?} names several dimensions of the slice: give a number");
            Err(Failure::bad_request("axis", detail))
        }
    }
}

/// Names of which none comes twice: formats tell dimensions apart by them.
fn unique(mut names: Vec<Option<String>>) -> Vec<Option<String>> {
    for at in 1..names.len() {
        let (before, after) = names.split_at_mut(at);
        if let Some(name) = after.first_mut()
            && before.contains(name)
        {
            *name = None;
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dimensions_are_named_and_numbered() {
        let names = ["time", "1", "x", "x"].map(|name| Some(name.to_owned()));
        let found = |text| axis(text, &names).ok();
        assert_eq!(found("time"), Some(0));
        assert_eq!(found("-1"), Some(3));
        // A name before a number.
        assert_eq!(found("1"), Some(1));
        for wrong in ["x", "4", "-5", "-9223372036854775808", "lat", ""] {
            assert_eq!(found(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn no_name_comes_twice() {
        let name = |text: &str| Some(text.to_owned());
        let found = unique(vec![name("x"), None, name("x"), None, name("y")]);
        assert_eq!(found, [name("x"), None, None, None, name("y")]);
    }
}

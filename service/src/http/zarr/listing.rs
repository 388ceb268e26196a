//! Lists of keys below a prefix, a page at a time.

use array::{NodePath, Region};
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use storage::{ArrayNode, GroupNode, Node};

use super::chunk_keys::{ChunkKeys, box_at, spelling};
use super::place::Place;
use super::{Target, caching};
use crate::error::Failure;
use crate::http::answer::Representation;

/// Names on a page unless asked otherwise.
const DEFAULT_LIMIT: usize = 1000;
/// Most names on a page.
const MAX_LIMIT: usize = 10_000;

/// Asks for names instead of an object.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    /// `children` for the names right below the key, `all` for every key below it: the answer is a
    /// list, in the order of the text.
    #[param(pattern = "^(children|all)$")]
    list: Option<String>,
    /// Only what comes after this, which is `next` of the page before.
    after: Option<String>,
    /// Most names on a page: 1 to 10000, 1000 if left out.
    #[param(pattern = "^([1-9][0-9]{0,3}|10000)$")]
    limit: Option<String>,
}

/// A page of names.
#[derive(Debug, Default, Serialize, Deserialize, PartialEq, utoipa::ToSchema)]
pub(crate) struct Listed {
    /// Objects, relative to the key that was asked for.
    pub(crate) keys: Vec<String>,
    /// Of `list=children`: names that have keys below them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) prefixes: Option<Vec<String>>,
    /// What the next page comes after; null on the last.
    pub(crate) next: Option<String>,
}

/// How far below a key to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    Children,
    All,
}

/// A page that is asked for.
pub(crate) struct Page {
    depth: Depth,
    after: String,
    limit: usize,
}

impl ListQuery {
    /// The page it asks for, if it asks for one.
    ///
    /// # Errors
    /// 400 for what is no such page.
    pub(crate) fn page(&self) -> Result<Option<Page>, Failure> {
        let depth = match self.list.as_deref() {
            Some("children") => Depth::Children,
            Some("all") => Depth::All,
            Some(other) => {
                let detail = format!("{other:?} is neither children nor all");
                return Err(Failure::bad_request("list", detail));
            }
            None => {
                let given = [
                    ("after", self.after.is_some()),
                    ("limit", self.limit.is_some()),
                ];
                return match given.into_iter().find(|(_, given)| *given) {
                    None => Ok(None),
                    Some((name, _)) => {
                        let detail = format!("{name} belongs to list=children or list=all");
                        Err(Failure::bad_request(name, detail))
                    }
                };
            }
        };
        let limit = match &self.limit {
            None => DEFAULT_LIMIT,
            Some(text) => {
                let limit = text.parse().ok();
                limit
                    .filter(|limit| (1..=MAX_LIMIT).contains(limit))
                    .ok_or_else(|| {
                        let detail = format!("{text:?} is not a number from 1 to {MAX_LIMIT}");
                        Failure::bad_request("limit", detail)
                    })?
            }
        };
        Ok(Some(Page {
            depth,
            after: self.after.clone().unwrap_or_default(),
            limit,
        }))
    }
}

/// The answer to a request for a page.
pub(crate) async fn answer(
    target: &Target<'_>,
    key: &str,
    page: &Page,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Response, Failure> {
    let depth = format!("{:?}", page.depth);
    let parts = ["list", &depth, &page.after, &page.limit.to_string()];
    let caching = caching(target, uri, &parts);
    if let Some(response) = caching.not_modified(headers) {
        return Ok(response);
    }
    let most = page.limit + 1;
    let mut names = names_below(target, key, page.depth, &page.after, most).await?;
    let is_last = names.len() <= page.limit;
    names.truncate(page.limit);
    let next = names.last().filter(|_| !is_last).cloned();
    let listed = match page.depth {
        Depth::All => Listed {
            keys: names,
            prefixes: None,
            next,
        },
        Depth::Children => {
            let (prefixes, keys): (Vec<String>, _) =
                names.into_iter().partition(|name| name.ends_with('/'));
            let trimmed = prefixes
                .iter()
                .map(|name| name.trim_end_matches('/').to_owned());
            Listed {
                keys,
                prefixes: Some(trimmed.collect()),
                next,
            }
        }
    };
    let body = serde_json::to_vec(&listed).map_err(|error| Failure::broken(error.to_string()))?;
    Representation::new("application/json", Bytes::from(body)).response(&caching, headers)
}

/// The first `most` names below `key` after `after`, sorted; names of directories end with a slash.
pub(crate) async fn names_below(
    target: &Target<'_>,
    key: &str,
    depth: Depth,
    after: &str,
    most: usize,
) -> Result<Vec<String>, Failure> {
    match Place::of(target, key).await? {
        Place::Directory(node) => match (*node, depth) {
            (Node::Array(array), _) => below_array(target, &array, depth, after, most).await,
            (Node::Group(group), Depth::Children) => children(target, &group, after, most).await,
            (Node::Group(group), Depth::All) => all(target, group, after, most).await,
        },
        Place::ChunkDirectory(array, at) => {
            note_chunks(target, &array, &at)?;
            let keys = ChunkKeys {
                array: &array,
                at,
                lead: String::new(),
                names_only: depth == Depth::Children,
            };
            keys.after(after, most).await
        }
        _ => Ok(Vec::new()),
    }
}

/// Notes that it is known which chunks there are, which follows from their values.
pub(super) fn note_chunks(
    target: &Target<'_>,
    array: &ArrayNode,
    at: &[u64],
) -> Result<(), Failure> {
    let metadata = array.metadata();
    let chunks = box_at(metadata, at)?;
    let (mut start, mut lengths) = (Vec::new(), Vec::new());
    for (axis, (&chunk, &length)) in metadata
        .chunk_shape()
        .iter()
        .zip(metadata.shape())
        .enumerate()
    {
        let range = chunks.range(axis);
        let first = range.start.saturating_mul(chunk).min(length);
        start.push(first);
        lengths.push(range.end.saturating_mul(chunk).min(length) - first);
    }
    target.note_region(array, Region::new(start, lengths)?);
    Ok(())
}

async fn below_array(
    target: &Target<'_>,
    array: &ArrayNode,
    depth: Depth,
    after: &str,
    most: usize,
) -> Result<Vec<String>, Failure> {
    note_chunks(target, array, &[])?;
    let (separator, lead) = spelling(array.metadata().chunk_key_encoding);
    let is_flat = separator != '/' || array.metadata().dimensions() == 0;
    let mut names = if depth == Depth::Children && !is_flat && !lead.is_empty() {
        let chunks = box_at(array.metadata(), &[])?;
        let is_empty = array.some_chunks(&chunks, 1).await?.is_empty();
        let name = Some(lead).filter(|lead| !is_empty && lead.as_str() > after);
        name.into_iter().collect()
    } else {
        let keys = ChunkKeys {
            array,
            at: Vec::new(),
            lead,
            names_only: depth == Depth::Children && !is_flat,
        };
        keys.after(after, most).await?
    };
    // Chunk keys begin with a digit or c.
    if names.len() < most && "zarr.json" > after {
        names.push("zarr.json".to_owned());
    }
    Ok(names)
}

async fn children(
    target: &Target<'_>,
    group: &GroupNode,
    after: &str,
    most: usize,
) -> Result<Vec<String>, Failure> {
    let members = target.member_paths(group).await?;
    let names = members.iter().map(|path| format!("{}/", path.name()));
    let mut names: Vec<String> = names.chain(["zarr.json".to_owned()]).collect();
    names.retain(|name| name.as_str() > after);
    names.sort();
    names.truncate(most);
    Ok(names)
}

/// What is left to list: a key, or a node with everything below it.
enum Open {
    Key(String),
    Node(String, NodePath),
}

impl Open {
    fn text(&self) -> &str {
        match self {
            Self::Key(text) | Self::Node(text, _) => text,
        }
    }
}

async fn all(
    target: &Target<'_>,
    group: GroupNode,
    after: &str,
    most: usize,
) -> Result<Vec<String>, Failure> {
    let mut found: Vec<String> = Vec::new();
    let mut open = members(target, "", &group).await?;
    while let Some(next) = open.pop() {
        if found.len() >= most {
            break;
        }
        let (text, path) = match next {
            Open::Key(key) => {
                found.extend(Some(key).filter(|key| key.as_str() > after));
                continue;
            }
            Open::Node(text, path) => (text, path),
        };
        // All below comes before.
        if text.as_str() < after && !after.starts_with(&text) {
            continue;
        }
        match target.find(&path).await? {
            Some(Node::Group(group)) => open.extend(members(target, &text, &group).await?),
            Some(Node::Array(array)) => {
                let after = after.strip_prefix(&text).unwrap_or_default();
                let left = most - found.len();
                let names = below_array(target, &array, Depth::All, after, left).await?;
                found.extend(names.iter().map(|name| format!("{text}{name}")));
            }
            None => {}
        }
    }
    Ok(found)
}

/// What a group has, the last of its keys first.
async fn members(target: &Target<'_>, text: &str, group: &GroupNode) -> Result<Vec<Open>, Failure> {
    let paths = target.member_paths(group).await?;
    let below = |path: NodePath| Open::Node(format!("{text}{}/", path.name()), path);
    let mut open: Vec<Open> = paths.into_iter().map(below).collect();
    open.push(Open::Key(format!("{text}zarr.json")));
    open.sort_by(|a, b| b.text().cmp(a.text()));
    Ok(open)
}

//! What a key of the Zarr view names, whether or not it is stored.

use array::{ChunkIndex, ChunkKeyEncoding, NodePath};
use storage::{ArrayNode, Node};

use super::Target;
use crate::error::Failure;

/// What a key names.
pub(crate) enum Place {
    /// `zarr.json` of the node at this path, if it can be a path.
    Document(Option<NodePath>),
    /// A group or an array.
    Directory(Box<Node>),
    /// A chunk in the grid of an array, stored or not.
    Chunk(Box<ArrayNode>, ChunkIndex),
    /// Chunks of an array whose first coordinates are these.
    ChunkDirectory(Box<ArrayNode>, Vec<u64>),
    /// Spelt like a chunk of this array, but outside its grid.
    OutsideGrid(Box<ArrayNode>),
    /// Nothing that this array can have.
    NotOfArray(Box<ArrayNode>),
    /// There is no node there.
    Nothing,
}

/// The names in a key; slashes repeated, leading and at its end do not count.
pub(crate) fn names(key: &str) -> Vec<&str> {
    key.split('/').filter(|name| !name.is_empty()).collect()
}

impl Place {
    /// What `key` names.
    ///
    /// # Errors
    /// 5xx if a tree or document cannot be read.
    pub(crate) async fn of(target: &Target<'_>, key: &str) -> Result<Self, Failure> {
        let names = names(key);
        if let Some((&"zarr.json", parents)) = names.split_last() {
            return Ok(Self::Document(parents.join("/").parse().ok()));
        }
        // The deepest node on the way; what follows an array names chunks.
        let mut path = NodePath::root();
        let mut node = target.find(&path).await?;
        for (depth, name) in names.iter().enumerate() {
            if let Some(Node::Array(array)) = node {
                return Ok(of_array(Box::new(array), &names[depth..]));
            }
            let Ok(next) = path.join(name) else {
                return Ok(Self::Nothing);
            };
            path = next;
            node = target.find(&path).await?;
            if node.is_none() {
                return Ok(Self::Nothing);
            }
        }
        Ok(node.map_or(Self::Nothing, |node| Self::Directory(Box::new(node))))
    }
}

/// What `names` below an array are.
fn of_array(array: Box<ArrayNode>, names: &[&str]) -> Place {
    let metadata = array.metadata().clone();
    let encoding = metadata.chunk_key_encoding;
    if let Some(index) = encoding.parse_key(&names.join("/"), metadata.dimensions()) {
        return if metadata.grid().contains(&index) {
            Place::Chunk(array, index)
        } else {
            Place::OutsideGrid(array)
        };
    }
    let coordinates = match encoding {
        ChunkKeyEncoding::Default { separator: '/' } => names.strip_prefix(&["c"]),
        ChunkKeyEncoding::V2 { separator: '/' } => Some(names),
        _ => None,
    };
    let coordinates = coordinates.filter(|names| names.len() < metadata.dimensions());
    let Some(coordinates) = coordinates else {
        return Place::NotOfArray(array);
    };
    let parse = |name: &&str| {
        let number = name.parse::<u64>().ok();
        number.filter(|number| number.to_string() == **name)
    };
    let Some(at) = coordinates.iter().map(parse).collect::<Option<Vec<u64>>>() else {
        return Place::NotOfArray(array);
    };
    let grid = metadata.grid().grid_shape();
    if at.iter().zip(&grid).all(|(at, length)| at < length) {
        Place::ChunkDirectory(array, at)
    } else {
        Place::OutsideGrid(array)
    }
}

//! Converts a NetCDF or HDF5 file to a Zarr directory, by way of a repository in memory.
//!
//! ```sh
//! cargo run -p importers --example to_zarr -- SOURCE DESTINATION.zarr [SKIP,…]
//! ```

use std::path::{Path, PathBuf};

use array::NodePath;
use importers::{Access, ImportOptions, Lengths, default_codecs, export_zarr, import};
use query::{Engine, Settings};
use storage::{Repository, Store};

type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (source, destination, skip) = match arguments.as_slice() {
        [source, destination] => (source, destination, ""),
        [source, destination, skip] => (source, destination, skip.as_str()),
        _ => return Err("give a SOURCE and a DESTINATION".into()),
    };
    let repository = Repository::create(Store::open("memory://")?.under("file"), "example").await?;
    let options = ImportOptions {
        source: PathBuf::from(source),
        group: NodePath::root(),
        branch: "main".parse()?,
        author: "example".into(),
        message: String::new(),
        access: Access::default(),
        inner_lengths: Lengths::default(),
        shard_lengths: Lengths::default(),
        codecs: default_codecs(),
        skip: skip
            .split(',')
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect(),
        memory_bytes: 192 << 20,
    };
    let imported = import(&repository, &options, &|_| {}).await?;
    let snapshot = repository.snapshot(imported.commit).await?;
    let engine = Engine::new(Settings::default())?;
    let root = snapshot.node(&NodePath::root()).await?;
    export_zarr(&engine, &snapshot, root, Path::new(destination), &|_| {}).await?;
    Ok(())
}

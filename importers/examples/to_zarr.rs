//! Converts a NetCDF or HDF5 file to a Zarr directory, by way of a repository in memory.
//!
//! ```sh
//! cargo run -p importers --example to_zarr -- SOURCE DESTINATION.zarr [SKIP,…]
//! ```

use std::path::Path;

use array::NodePath;
use importers::export::export_zarr;
use importers::{ImportOptions, import};
use query::{Engine, Settings};
use storage::{AllowList, Externals, Repository, Store};

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
    let names = skip.split(',').filter(|name| !name.is_empty());
    let options = ImportOptions {
        skip: names.map(str::to_owned).collect(),
        ..ImportOptions::new(vec![source.clone()], "main".parse()?)
    };
    let files = Externals::new(AllowList::everything());
    let imported = import(&repository, &options, &files, &|_| {}).await?;
    let snapshot = repository.snapshot(imported.commit).await?;
    let engine = Engine::new(Settings::default())?;
    let root = snapshot.node(&NodePath::root()).await?;
    export_zarr(&engine, &snapshot, root, Path::new(destination), &|_| {}).await?;
    Ok(())
}

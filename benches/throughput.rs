//! Throughput of the main paths on a local store: import, whole reads, small reads, reductions.
//!
//! `cargo bench -p quarr-benches` prints a table; `QUARR_BENCH_MEGABYTES` sets the size of the file.

#![expect(clippy::print_stdout, reason = "the table is the result")]

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use array::{Bounds, NodePath, ResolvedSelection, Selection};
use compute::cf::Decode;
use compute::{Reducer, Reduction};
use importers::ImportOptions;
use quarr_benches::{Timing, measure};
use quarr_tests::sample;
use query::{ArrayReader, Engine, Settings};
use storage::{AllowList, Externals, Repository, Store};

type Error = Box<dyn std::error::Error + Send + Sync>;

const RUNS: usize = 5;
const DEFAULT_MEGABYTES: u64 = 256;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let megabytes = match std::env::var("QUARR_BENCH_MEGABYTES") {
        Ok(text) => text.parse()?,
        Err(_) => DEFAULT_MEGABYTES,
    };
    let folder = tempfile::tempdir()?;
    let source = folder.path().join("large.nc");
    sample::large(megabytes).write(&mut BufWriter::new(File::create(&source)?))?;
    let bytes = megabytes << 20;

    println!("{megabytes} MiB of 32-bit floats, {RUNS} runs, local store\n");
    println!("{:<36} {:>10} {:>10} {:>10}", "", "best", "median", "MB/s");
    let import = measure(
        RUNS,
        async || tempfile::tempdir().map_err(Error::from),
        async |target| import_file(&source, target.path()).await,
    );
    print(&import.await?, "import a NetCDF-3 file", bytes);

    let store = folder.path().join("store");
    import_file(&source, &store).await?;
    let array = open(&store).await?;
    for (name, text, share) in [
        ("read all, cold cache", "...", 1),
        ("read one record, cold cache", "0", bytes / (8 << 20)),
    ] {
        let selection = select(&array, text)?;
        let read = measure(
            RUNS,
            async || engine(),
            async |engine| {
                engine
                    .read(&array, &selection, Decode::Raw)
                    .await
                    .map(drop)
                    .map_err(Error::from)
            },
        );
        print(&read.await?, name, bytes / share.max(1));
    }
    let all = select(&array, "...")?;
    for (name, reducer, over) in [
        ("sum over everything", Reducer::Sum, [true, true, true]),
        ("mean over time", Reducer::Mean, [true, false, false]),
        (
            "standard deviation over the field",
            Reducer::Std,
            [false, true, true],
        ),
    ] {
        let reduction = Reduction::new(reducer);
        let reduce = measure(
            RUNS,
            async || engine(),
            async |engine| {
                let result = engine.reduce(&array, &all, Decode::Raw, reduction, &over);
                result.await.map(drop).map_err(Error::from)
            },
        );
        print(&reduce.await?, name, bytes);
    }
    Ok(())
}

fn print(timing: &Timing, name: &str, bytes: u64) {
    let (best, median) = (timing.best.as_secs_f64(), timing.median.as_secs_f64());
    let rate = timing.megabytes_per_second(bytes);
    println!("{name:<36} {best:>8.3} s {median:>8.3} s {rate:>10.0}");
}

async fn import_file(source: &Path, target: &Path) -> Result<(), Error> {
    let store = Store::open(&target.to_string_lossy())?.under("large");
    let repository = Repository::create(store, "bench").await?;
    let sources = vec![source.to_string_lossy().into_owned()];
    let options = ImportOptions {
        memory_bytes: 256 << 20,
        ..ImportOptions::new(sources, "main".parse()?)
    };
    let files = Externals::new(AllowList::everything());
    importers::import(&repository, &options, &files, &|_| {}).await?;
    Ok(())
}

async fn open(store: &Path) -> Result<ArrayReader, Error> {
    let store = Store::open(&store.to_string_lossy())?.under("large");
    let repository = Repository::open(store).await?;
    let head = repository.resolve(&"main".parse()?).await?;
    let snapshot = repository.snapshot(head.commit).await?;
    Ok(engine()?.open(snapshot.array(&NodePath::root().join("field")?).await?)?)
}

/// With nothing cached.
fn engine() -> Result<Engine, Error> {
    Ok(Engine::new(Settings::default())?)
}

fn select(array: &ArrayReader, text: &str) -> Result<ResolvedSelection, Error> {
    let selection: Selection = text.parse()?;
    Ok(selection.resolve(array.metadata().shape(), Bounds::Clamp)?)
}

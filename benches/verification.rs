//! What verification costs: every byte that is read is hashed once, and the hash compared.
//!
//! `make bench` runs it in a build of its own in which the hashing can be left out, so that both
//! are measured in one run, by turns:
//! `RUSTFLAGS="--cfg quarr_unverified" cargo bench -p quarr-benches --bench verification --target-dir target/unverified`

#![expect(clippy::print_stdout, reason = "the table is the result")]

#[cfg(not(quarr_unverified))]
fn main() {
    println!("verification: left out, this build cannot do without it (see make bench)");
}

#[cfg(quarr_unverified)]
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), measured::Error> {
    measured::run().await
}

#[cfg(quarr_unverified)]
mod measured {
    use std::hint::black_box;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use array::hash::{Kind, hash};
    use array::shard::{unverified, verify_shard};
    use array::{Bounds, CodecMetadata, DataType, Selection};
    use compute::cf::Decode;
    use object_store::ObjectStoreExt as _;
    use object_store::memory::InMemory;
    use quarr_tests::arrays::SampleArray;
    use query::{Engine, Settings};
    use serde_json::json;
    use service::http::router;
    use service::state::{Limits, State};
    use storage::{CommitOptions, Repository, Store, Transaction};

    pub(super) type Error = Box<dyn std::error::Error + Send + Sync>;

    const RUNS: usize = 21;
    const SHAPE: [u64; 3] = [64, 512, 512];
    const BYTES: u64 = 4 * SHAPE[0] * SHAPE[1] * SHAPE[2];

    pub(super) async fn run() -> Result<(), Error> {
        println!(
            "\n{} MiB of 32-bit floats in memory, one thread, medians of {RUNS} pairs\n",
            BYTES >> 20
        );
        println!(
            "{:<28} {:>6} {:>10} {:>10} {:>10} {:>10} {:>10} {:>9}",
            "codec, inner chunk",
            "ratio",
            "BLAKE3",
            "shards",
            "×",
            "read",
            "unverified",
            "overhead"
        );
        let mut zstd = None;
        for (codec, inner) in [
            ("none", [16, 128, 128]),
            ("none", [1, 128, 128]),
            ("lz4", [16, 128, 128]),
            ("zstd", [16, 128, 128]),
        ] {
            let case = Case::new(codec, inner).await?;
            case.measure().await?;
            if codec == "zstd" {
                zstd = Some(case);
            }
        }
        match zstd {
            Some(case) => case.measure_http().await,
            None => Ok(()),
        }
    }

    struct Case {
        name: String,
        objects: Arc<InMemory>,
        repository: Repository,
    }

    impl Case {
        async fn new(codec: &str, inner: [u64; 3]) -> Result<Self, Error> {
            let codec_of = |name, configuration| CodecMetadata::new(name, configuration);
            let mut codecs = vec![codec_of("bytes", json!({ "endian": "little" }))];
            match codec {
                "lz4" => codecs.push(codec_of(
                    "blosc",
                    json!({ "cname": "lz4", "clevel": 5, "shuffle": "bitshuffle", "typesize": 4, "blocksize": 0 }),
                )),
                "zstd" => codecs.push(codec_of("zstd", json!({ "level": 1, "checksum": false }))),
                _ => {}
            }
            let list = |codecs: &[CodecMetadata]| -> Vec<_> {
                codecs.iter().map(CodecMetadata::to_json).collect()
            };
            let index = [
                codec_of("bytes", json!({ "endian": "little" })),
                codec_of("crc32c", json!({})),
            ];
            let sharding = codec_of(
                "sharding_indexed",
                json!({
                    "chunk_shape": inner,
                    "codecs": list(&codecs),
                    "index_codecs": list(&index),
                    "index_location": "end",
                }),
            );
            // A smooth field to a tenth of a degree.
            let value = |at: u64| {
                let (x, y) = ((at % 512) as f32, (at / 512 % 512) as f32);
                let time = (at / (512 * 512)) as f32;
                let noise = (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 60) as f32 / 10.0;
                let field = 280.0 + 20.0 * (y / 80.0).sin() + 5.0 * (x / 50.0 + time).cos();
                (((field + noise) * 10.0).round() / 10.0)
                    .to_le_bytes()
                    .to_vec()
            };
            let shards = [32, 256, 256];
            let sample = SampleArray::new(
                "field",
                DataType::Float32,
                &SHAPE,
                &shards,
                vec![sharding],
                value,
            )?;
            let objects = Arc::new(InMemory::new());
            let store = Store::from_objects(objects.clone(), "memory");
            let repository = Repository::create(store.under("r"), "bench").await?;
            let transaction = Transaction::begin(&repository, &"main".parse()?).await?;
            sample.store(&transaction).await?;
            transaction.commit(CommitOptions::default()).await?;
            let kib = inner.iter().product::<u64>() / 256;
            Ok(Self {
                name: format!("{codec}, {kib} KiB"),
                objects,
                repository,
            })
        }

        /// The bytes of every shard, with the number of inner chunks of each.
        async fn shards(&self) -> Result<Vec<(array::Hash, bytes::Bytes)>, Error> {
            let head = self.repository.resolve(&"main".parse()?).await?;
            let snapshot = self.repository.snapshot(head.commit).await?;
            let array = snapshot.array(&"field".parse()?).await?;
            let grid = array::Region::whole(&array.metadata().grid().grid_shape());
            let mut shards = Vec::new();
            for row in array.chunks(&grid).await? {
                let key = format!("r/{}", storage::shard_key(&row.id));
                let bytes = self
                    .objects
                    .get(&key.as_str().into())
                    .await?
                    .bytes()
                    .await?;
                shards.push((row.id, bytes));
            }
            Ok(shards)
        }

        async fn measure(&self) -> Result<(), Error> {
            let head = self.repository.resolve(&"main".parse()?).await?;
            let snapshot = self.repository.snapshot(head.commit).await?;
            let array = snapshot.array(&"field".parse()?).await?;
            let sharding = array::Sharding::of(array.metadata())?.ok_or("not sharded")?;
            let count = sharding.inner_chunks();
            let shards = self.shards().await?;
            let mut chunks = Vec::new();
            for (id, bytes) in &shards {
                let footer = verify_shard(bytes, id, count)?;
                let entries = footer.entries().iter().flatten();
                chunks.extend(
                    entries.map(|entry| {
                        bytes.slice(entry.offset as usize..entry.range().end as usize)
                    }),
                );
            }
            let encoded: u64 = chunks.iter().map(|chunk| chunk.len() as u64).sum();

            let mut hashing = Vec::new();
            let mut verifying = Vec::new();
            let (mut with, mut without) = (Vec::new(), Vec::new());
            for _ in 0..RUNS {
                hashing.push(time(|| {
                    for chunk in &chunks {
                        black_box(hash(Kind::InnerChunk, chunk));
                    }
                }));
                unverified::take_hashed_bytes();
                verifying.push(time(|| {
                    for (id, bytes) in &shards {
                        black_box(verify_shard(bytes, id, count).is_ok());
                    }
                }));
                assert_eq!(
                    unverified::take_hashed_bytes(),
                    encoded,
                    "each byte is hashed once"
                );
                for is_off in [false, true] {
                    unverified::switch_off(is_off);
                    let took = self.read(array.clone()).await?;
                    if is_off { &mut without } else { &mut with }.push(took);
                    let expected = if is_off { 0 } else { encoded };
                    assert_eq!(
                        unverified::take_hashed_bytes(),
                        expected,
                        "each byte is hashed once"
                    );
                }
                unverified::switch_off(false);
            }
            let differences = with.iter().zip(&without);
            let differences = differences.map(|(a, b)| a.as_secs_f64() - b.as_secs_f64());
            let extra = median(differences.collect());
            let [hashing, verifying, with, without] = [hashing, verifying, with, without]
                .map(|runs| median(runs.iter().map(Duration::as_secs_f64).collect()));
            println!(
                "{:<28} {:>6.2} {:>7.1} ms {:>7.1} ms {:>10.2} {:>7.1} ms {:>7.1} ms {:>8.1} % ({:.2} × BLAKE3)",
                self.name,
                BYTES as f64 / encoded as f64,
                1e3 * hashing,
                1e3 * verifying,
                verifying / hashing,
                1e3 * with,
                1e3 * without,
                100.0 * extra / without,
                extra / hashing,
            );
            Ok(())
        }

        /// Reads the whole array with nothing cached.
        async fn read(&self, array: storage::ArrayNode) -> Result<Duration, Error> {
            let engine = engine()?;
            let array = engine.open(array)?;
            let all: Selection = "...".parse()?;
            let all = all.resolve(array.metadata().shape(), Bounds::Clamp)?;
            let started = Instant::now();
            black_box(engine.read(&array, &all, Decode::Raw).await?);
            Ok(started.elapsed())
        }

        /// The same through the service and a socket.
        async fn measure_http(&self) -> Result<(), Error> {
            let (mut with, mut without) = (Vec::new(), Vec::new());
            for run in 0..=RUNS {
                for is_off in [false, true] {
                    unverified::switch_off(is_off);
                    let took = self.fetch().await?;
                    // The first is for warming up.
                    if run > 0 {
                        if is_off { &mut without } else { &mut with }.push(took);
                    }
                }
            }
            unverified::switch_off(false);
            let ratios = with.iter().zip(&without);
            let ratios = ratios.map(|(a, b)| a.as_secs_f64() / b.as_secs_f64());
            let ratio = median(ratios.collect());
            let [with, without] = [with, without]
                .map(|runs| median(runs.iter().map(Duration::as_secs_f64).collect()));
            println!(
                "\n{} through HTTP: {:.1} ms, unverified {:.1} ms; median of the ratios {:.1} % more",
                self.name,
                1e3 * with,
                1e3 * without,
                100.0 * (ratio - 1.0)
            );
            Ok(())
        }

        async fn fetch(&self) -> Result<Duration, Error> {
            let store = Store::from_objects(self.objects.clone(), "memory");
            let limits = Limits {
                answer_bytes: 2 * BYTES,
                ..Limits::default()
            };
            let router = router(State::new(store, engine()?, limits));
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
            let url = format!(
                "http://{}/v1/repos/r/refs/main/data/field?decode=raw&f=octet-stream",
                listener.local_addr()?
            );
            let server = tokio::spawn(async move { axum::serve(listener, router).await });
            let started = Instant::now();
            let answer = reqwest::get(url).await?.error_for_status()?.bytes().await?;
            let took = started.elapsed();
            server.abort();
            assert_eq!(answer.len() as u64, BYTES);
            Ok(took)
        }
    }

    fn engine() -> Result<Engine, Error> {
        Ok(Engine::new(Settings {
            threads: 1,
            concurrent_chunks: 1,
            ..Settings::default()
        })?)
    }

    fn time(work: impl FnOnce()) -> Duration {
        let started = Instant::now();
        work();
        started.elapsed()
    }

    fn median(mut values: Vec<f64>) -> f64 {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    }
}

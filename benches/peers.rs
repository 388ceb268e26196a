//! Quarr's engine and zarrs in process, for the comparison in `peers/`: what they read, without HTTP.
//!
//! `peers quarr STORE REPOSITORY ARRAY` or `peers zarrs DIRECTORY ARRAY` answers the requests that
//! `peers/run.py` writes to its standard input, one line of JSON each, as the workers in Python do,
//! so that all of them are measured by turns.

#![expect(clippy::print_stdout, reason = "answers go to standard output")]

use std::hint::black_box;
use std::io::BufRead as _;
use std::sync::Arc;
use std::time::Instant;

use array::{Bounds, Elements, NodePath, Selection};
use compute::cf::Decode;
use compute::{Reducer, Reduction};
use query::{ArrayReader, Engine, Settings};
use serde::Deserialize;
use serde_json::{Value, json};
use storage::{Repository, Store};
use zarrs::array::{Array, ArrayBytes, ArraySubset};
use zarrs::filesystem::FilesystemStore;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Start, stop and step for each dimension.
type Box3 = Vec<[u64; 3]>;

#[derive(Debug, Deserialize)]
struct Request {
    call: String,
    /// What to read, one box a repetition.
    #[serde(default)]
    boxes: Vec<Box3>,
    #[serde(default = "one")]
    in_flight: usize,
    /// How often, of calls that have no box.
    #[serde(default = "one")]
    repeat: usize,
}

fn one() -> usize {
    1
}

enum Peer {
    Quarr(Box<(Engine, ArrayReader)>),
    Zarrs(Arc<Array<FilesystemStore>>),
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut opened = None;
    for line in std::io::stdin().lock().lines() {
        let request: Request = serde_json::from_str(&line?)?;
        let answer = if request.call == "open" {
            let start = Instant::now();
            opened = Some(open(&arguments).await?);
            json!({ "seconds": [start.elapsed().as_secs_f64()] })
        } else {
            let peer = opened.as_ref().ok_or("not opened")?;
            match answer(peer, &request).await? {
                Some(answer) => answer,
                None => json!({ "unsupported": "not measured in process" }),
            }
        };
        println!("{answer}");
    }
    Ok(())
}

async fn open(arguments: &[&str]) -> Result<Peer, Error> {
    match arguments {
        ["quarr", store, repository, array] => {
            let store = Store::open(store)?.under(repository);
            let repository = Repository::open(store).await?;
            let head = repository.resolve(&"main".parse()?).await?;
            let snapshot = repository.snapshot(head.commit).await?;
            let engine = Engine::new(Settings::default())?;
            let node = snapshot.array(&NodePath::root().join(array)?).await?;
            let reader = engine.open(node)?;
            Ok(Peer::Quarr(Box::new((engine, reader))))
        }
        ["zarrs", directory, array] => {
            let store = Arc::new(FilesystemStore::new(directory)?);
            Ok(Peer::Zarrs(Arc::new(Array::open(
                store,
                &format!("/{array}"),
            )?)))
        }
        _ => Err("usage: peers quarr STORE REPOSITORY ARRAY | zarrs DIRECTORY ARRAY".into()),
    }
}

async fn answer(peer: &Peer, request: &Request) -> Result<Option<Value>, Error> {
    match (request.call.as_str(), peer) {
        ("read", _) => read_boxes(peer, &request.boxes).await.map(Some),
        ("chunks", _) => read_chunks(peer, &request.boxes, request.in_flight)
            .await
            .map(Some),
        ("mean0" | "mean" | "std" | "max", Peer::Quarr(quarr)) => {
            reduce(&quarr.0, &quarr.1, &request.call, request.repeat)
                .await
                .map(Some)
        }
        _ => Ok(None),
    }
}

async fn read_boxes(peer: &Peer, boxes: &[Box3]) -> Result<Value, Error> {
    let (mut seconds, mut words) = (Vec::new(), 0);
    for asked in boxes {
        let start = Instant::now();
        let bytes = peer.read(asked).await?;
        seconds.push(start.elapsed().as_secs_f64());
        words = sum_of_words(&bytes);
        drop(black_box(bytes));
    }
    Ok(json!({ "seconds": seconds, "words": words.to_string() }))
}

/// One reading after another in each of `in_flight` lanes.
async fn read_chunks(peer: &Peer, boxes: &[Box3], in_flight: usize) -> Result<Value, Error> {
    let start = Instant::now();
    let words = match peer {
        Peer::Quarr(quarr) => {
            let lanes = (0..in_flight).map(|lane| {
                let (engine, array) = (**quarr).clone();
                let mine: Vec<Box3> = boxes
                    .iter()
                    .skip(lane)
                    .step_by(in_flight)
                    .cloned()
                    .collect();
                tokio::spawn(async move {
                    let mut words = 0u64;
                    for asked in mine {
                        let bytes = read_quarr(&engine, &array, &asked).await?;
                        words = words.wrapping_add(sum_of_words(&bytes));
                    }
                    Ok::<u64, Error>(words)
                })
            });
            let lanes: Vec<_> = lanes.collect();
            let mut words = 0u64;
            for lane in lanes {
                words = words.wrapping_add(lane.await??);
            }
            words
        }
        Peer::Zarrs(array) => std::thread::scope(|scope| {
            let lanes: Vec<_> = (0..in_flight)
                .map(|lane| {
                    scope.spawn(move || {
                        let mut words = 0u64;
                        for asked in boxes.iter().skip(lane).step_by(in_flight) {
                            let bytes = read_zarrs(array, asked)?;
                            words = words.wrapping_add(sum_of_words(&bytes));
                        }
                        Ok::<u64, Error>(words)
                    })
                })
                .collect();
            let mut words = 0u64;
            for lane in lanes {
                let lane = lane.join().map_err(|_| "a lane panicked")?;
                words = words.wrapping_add(lane?);
            }
            Ok::<u64, Error>(words)
        })?,
    };
    Ok(json!({ "seconds": [start.elapsed().as_secs_f64()], "words": words.to_string() }))
}

async fn reduce(
    engine: &Engine,
    array: &ArrayReader,
    call: &str,
    repeat: usize,
) -> Result<Value, Error> {
    let (reducer, over) = match call {
        "mean0" => (Reducer::Mean, [true, false, false]),
        other => (other.parse()?, [true, true, true]),
    };
    let all = "...".parse::<Selection>()?;
    let all = all.resolve(array.metadata().shape(), Bounds::Clamp)?;
    let (mut seconds, mut total) = (Vec::new(), 0.0);
    for _ in 0..repeat {
        let start = Instant::now();
        let reduction = Reduction::new(reducer);
        let tensor = engine
            .reduce(array, &all, Decode::Raw, reduction, &over)
            .await?;
        seconds.push(start.elapsed().as_secs_f64());
        total = fixed(tensor.elements)?
            .chunks_exact(4)
            .map(|word| f64::from(f32::from_le_bytes([word[0], word[1], word[2], word[3]])))
            .sum::<f64>();
    }
    Ok(json!({ "seconds": seconds, "total": total }))
}

impl Peer {
    async fn read(&self, asked: &Box3) -> Result<Vec<u8>, Error> {
        match self {
            Self::Quarr(quarr) => read_quarr(&quarr.0, &quarr.1, asked).await,
            Self::Zarrs(array) => read_zarrs(array, asked),
        }
    }
}

async fn read_quarr(engine: &Engine, array: &ArrayReader, asked: &Box3) -> Result<Vec<u8>, Error> {
    let text: Vec<String> = asked
        .iter()
        .map(|[start, stop, step]| format!("{start}:{stop}:{step}"))
        .collect();
    let selection = text.join(",").parse::<Selection>()?;
    let selection = selection.resolve(array.metadata().shape(), Bounds::Clamp)?;
    fixed(engine.read(array, &selection, Decode::Raw).await?.elements)
}

/// zarrs reads boxes without steps; what a step leaves out is read and dropped, as by its callers.
fn read_zarrs(array: &Array<FilesystemStore>, asked: &Box3) -> Result<Vec<u8>, Error> {
    let ranges: Vec<_> = asked.iter().map(|[start, stop, _]| *start..*stop).collect();
    let subset = ArraySubset::new_with_ranges(&ranges);
    let bytes = array.retrieve_array_subset::<ArrayBytes<'_>>(&subset)?;
    let bytes = bytes.into_fixed()?.into_owned();
    if asked.iter().all(|[_, _, step]| *step == 1) {
        return Ok(bytes);
    }
    let lengths: Vec<usize> = ranges.iter().map(|r| (r.end - r.start) as usize).collect();
    let steps: Vec<usize> = asked.iter().map(|[_, _, step]| *step as usize).collect();
    let mut kept = Vec::new();
    for i in (0..lengths[0]).step_by(steps[0]) {
        for j in (0..lengths[1]).step_by(steps[1]) {
            for k in (0..lengths[2]).step_by(steps[2]) {
                let at = 4 * ((i * lengths[1] + j) * lengths[2] + k);
                kept.extend_from_slice(&bytes[at..at + 4]);
            }
        }
    }
    Ok(kept)
}

fn fixed(elements: Elements) -> Result<Vec<u8>, Error> {
    match elements {
        Elements::Fixed(bytes) => Ok(bytes),
        Elements::Variable(_) => Err("an array of strings".into()),
    }
}

/// What all peers answer about values they have read, so that they can be compared.
fn sum_of_words(bytes: &[u8]) -> u64 {
    let words = bytes.chunks_exact(4);
    words.fold(0, |sum, word| {
        sum.wrapping_add(u64::from(u32::from_le_bytes([
            word[0], word[1], word[2], word[3],
        ])))
    })
}

//! Zarr clients that read a shard inner chunk by inner chunk, and what that costs in the store.

use quarr_tests::watched::{Damage, Request};
use serde_json::json;

use crate::support::{MAIN, Service, requests};

const INNER_BYTES: usize = 512;
const COUNT: usize = 64;

/// A shard of inner chunks of noise, and where a Zarr client finds them.
struct Shard {
    service: Service,
    values: Vec<u8>,
    /// Offset and length of each inner chunk.
    places: Vec<(u64, u64)>,
    key: String,
}

impl Shard {
    async fn new(remote: bool) -> Self {
        let writing = Service::new().await.with_answers_of(1 << 20);
        let length = INNER_BYTES * COUNT;
        let node = json!({ "shape": [length], "data_type": "uint8",
            "chunks": [INNER_BYTES], "shards": [length] });
        let url = format!("{MAIN}/nodes/noise");
        let created = writing.ask("PUT", &url, &[], &node.to_string()).await;
        assert!(created.status.is_success(), "{:?}", created.body);
        let values: Vec<u8> = (0..length as u64)
            .map(|nth| (nth.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8)
            .collect();
        let octets = ("content-type", "application/octet-stream");
        let url = format!("{MAIN}/data/noise");
        let written = writing.put_as(&url, octets, values.clone()).await;
        assert!(written.status.is_success(), "{:?}", written.body);
        requests(&writing.objects);

        let service = if remote {
            writing.remote()
        } else {
            writing.restarted()
        };
        let mut shard = Self {
            service,
            values,
            places: Vec::new(),
            key: String::new(),
        };
        let index = shard.range(&format!("bytes=-{}", 16 * COUNT + 4)).await;
        let numbers = index[..16 * COUNT].chunks_exact(8);
        let numbers: Vec<u64> = numbers
            .map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()))
            .collect();
        shard.places = numbers.chunks_exact(2).map(|at| (at[0], at[1])).collect();
        shard.key = shard.gets().pop().expect("the footer is read").0;
        shard
    }

    async fn range(&self, range: &str) -> Vec<u8> {
        let url = format!("{MAIN}/zarr/noise/c/0");
        let answer = self.service.ask("GET", &url, &[("range", range)], "").await;
        assert_eq!(answer.status, 206, "{range}: {:?}", answer.body);
        answer.body.to_vec()
    }

    fn header(&self, nth: usize) -> String {
        let (offset, length) = self.places[nth];
        format!("bytes={offset}-{}", offset + length - 1)
    }

    /// Reads one inner chunk.
    async fn read(&self, nth: usize) {
        let bytes = self.range(&self.header(nth)).await;
        let plain = zstd::decode_all(&bytes[..]).unwrap();
        assert_eq!(plain, self.values[nth * INNER_BYTES..][..INNER_BYTES]);
    }

    /// Reads of shards that reached the store since the last call: key, first byte and end.
    fn gets(&self) -> Vec<(String, u64, u64)> {
        let all = requests(&self.service.objects).into_iter();
        all.filter_map(|request| match request {
            Request::Get(key, range) if key.contains("/shards/") => {
                Some((key, range.start, range.end))
            }
            _ => None,
        })
        .collect()
    }

    /// Reads these inner chunks, each of which must be read from the store once; gives the number of
    /// requests that took.
    async fn walk(&self, order: impl IntoIterator<Item = usize>) -> usize {
        for nth in order {
            self.read(nth).await;
        }
        let gets = self.gets();
        for (nth, (offset, length)) in self.places.iter().enumerate() {
            let reads = gets
                .iter()
                .filter(|(_, start, end)| *start < offset + length && *offset < *end);
            assert_eq!(reads.count(), 1, "inner chunk {nth}: {gets:?}");
        }
        gets.len()
    }
}

#[tokio::test]
async fn a_shard_that_is_read_in_order_takes_few_requests() {
    let shard = Shard::new(true).await;
    assert!(shard.walk(0..COUNT).await <= 8);
    for nth in 0..COUNT {
        shard.read(nth).await;
    }
    assert_eq!(shard.gets(), []);
}

#[tokio::test]
async fn readers_that_overtake_each_other_take_few_requests() {
    let shard = Shard::new(true).await;
    let swapped = (0..COUNT).map(|nth| nth ^ 3);
    assert!(shard.walk(swapped).await <= 12);
}

#[tokio::test]
async fn readers_that_jump_read_nothing_else() {
    let shard = Shard::new(true).await;
    for nth in [40, 3, 60, 20] {
        shard.read(nth).await;
        let (offset, length) = shard.places[nth];
        let gets = shard.gets();
        let [(_, start, end)] = &gets[..] else {
            panic!("{gets:?}")
        };
        assert_eq!((*start, *end), (offset, offset + length));
    }
}

#[tokio::test]
async fn damage_ahead_harms_nobody_before() {
    let shard = Shard::new(true).await;
    let damaged = 9;
    let (offset, _) = shard.places[damaged];
    let objects = &shard.service.objects;
    objects.set_damage(Some((&shard.key, Damage::Flip(offset, 1))));
    for nth in (0..COUNT).filter(|nth| *nth != damaged) {
        shard.read(nth).await;
    }
    let url = format!("{MAIN}/zarr/noise/c/0");
    let range = shard.header(damaged);
    let range = [("range", range.as_str())];
    let answer = shard.service.ask("GET", &url, &range, "").await;
    assert_eq!(answer.status, 500, "{:?}", answer.body);
}

#[tokio::test]
async fn chunks_of_this_machine_are_kept_once_they_are_wanted_often() {
    let shard = Shard::new(false).await;
    for expected in [1, 1, 1, 0, 0] {
        for nth in 5..9 {
            shard.read(nth).await;
            assert_eq!(shard.gets().len(), expected, "{nth}");
        }
    }
}

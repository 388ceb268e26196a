//! Ways in for the targets of `fuzz`, to decoders behind hashes that no fuzzer guesses. Only builds
//! with `--cfg fuzzing` have it.
//!
//! Each function takes a document as it may be stored, puts the hashes right that would only say it
//! was changed, and panics if what is understood is another thing after it was written and read.

use array::hash::{self, Kind};

use crate::CommitId;
use crate::commit::Commit;
use crate::journal;
use crate::layout::Layout;
use crate::log::{LogEntry, LogState};
use crate::page::{self, ManifestRow, Page, PageRow, StatisticsRow, page_id};
use crate::tree::TreePage;

/// Chunks along each dimension of the arrays whose pages are read.
const GRID: u64 = 5000;

/// Reads an Arrow stream as a page of a manifest.
pub fn manifest_page(stream: &[u8], dimensions: usize, level: u32) {
    page::<ManifestRow>(stream, dimensions, level);
}

/// Reads an Arrow stream as a page of statistics.
pub fn statistics_page(stream: &[u8], dimensions: usize, level: u32) {
    page::<StatisticsRow>(stream, dimensions, level);
}

fn page<R: PageRow>(stream: &[u8], dimensions: usize, level: u32) {
    let file = file(stream);
    let Ok(layout) = Layout::new(&vec![GRID; dimensions]) else {
        return;
    };
    let Ok(rows) = page::rows::<R>(&file, &layout, level) else {
        return;
    };
    let id = page_id(&rows, level);
    // The page that would have its first row.
    let first = rows.first().map(|row| layout.address(row.coordinate()));
    let number = first.map_or(0, |address| Layout::page(address, level));
    let read = |file: &[u8]| page::decode::<R>(file, &id, &layout, level, number);
    let Ok(read_first) = read(&file) else { return };
    let encoded = page::encode(&read_first.rows, level);
    let again = encoded.map(|file| read(&file));
    let is_same =
        |page: &Page<R>| page.addresses == read_first.addresses && page_id(&page.rows, level) == id;
    assert!(matches!(again, Ok(Ok(page)) if is_same(&page)));
}

/// Reads an Arrow stream as a page of a tree.
pub fn tree_page(stream: &[u8]) {
    let Ok(page) = TreePage::of_file(&file(stream)) else {
        return;
    };
    let again = page
        .encode()
        .map(|file| TreePage::decode(&file, &page.id()));
    // What has its rows in another order is written, but never read.
    let is_sorted = page.names().is_sorted_by(|a, b| a < b);
    match again {
        Ok(Ok(again)) => assert_eq!(again, page),
        _ => assert!(!is_sorted, "a page cannot be read that was written"),
    }
}

/// Reads the bytes of a commit.
pub fn commit(bytes: &[u8]) {
    let Ok(value) = array::json::parse("commit", bytes) else {
        return;
    };
    let bytes = array::json::canonical_bytes(&value);
    let id = CommitId(hash::hash(Kind::Commit, &bytes));
    if let Ok(commit) = Commit::decode(&id, &bytes) {
        assert_eq!(commit.encode(), (id, bytes));
    }
}

/// Reads the bytes of entry 0 or 7 of a log.
pub fn log_entry(bytes: &[u8]) {
    for sequence in [0, 7] {
        if let Ok((hash, entry)) = LogEntry::decode(sequence, bytes) {
            assert_eq!(entry.encode(), (hash, bytes.to_vec()));
        }
    }
}

/// Reads the bytes of the checkpoint after entry 0 or 7 of a log.
pub fn checkpoint(bytes: &[u8]) {
    for sequence in [0, 7] {
        if let Ok(state) = LogState::decode_checkpoint(sequence, bytes) {
            let again = LogState::decode_checkpoint(sequence, &state.encode_checkpoint());
            assert_eq!(again, Ok(state));
        }
    }
}

/// Reads a record of staged changes.
pub fn staged(bytes: &[u8]) {
    let Ok(steps) = journal::decode_record(bytes) else {
        return;
    };
    let again = journal::encode_record(&steps);
    let again = journal::decode_record(&again).map(|steps| journal::encode_record(&steps));
    assert_eq!(again, Ok(journal::encode_record(&steps)));
}

/// The row file of an Arrow stream.
fn file(stream: &[u8]) -> Vec<u8> {
    let mut file = stream.to_vec();
    file.extend_from_slice(hash::hash(Kind::File, stream).as_bytes());
    file
}

//! Creates a repository with arrays of every data type and codec, and writes down their values.
//!
//! `sample-types STORE REPOSITORY FOLDER` makes `FOLDER/arrays.json`: for each array its path and
//! shape, and its values in C order, base64 of little-endian bytes or a list of base64 strings where
//! elements vary in length.

use array::Elements;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use quarr_tests::arrays::{self, Error, SampleArray};
use serde_json::{Value, json};
use storage::{CommitOptions, Repository, Store, Transaction};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [store, name, folder] = arguments.as_slice() else {
        return Err("usage: sample-types STORE REPOSITORY FOLDER".into());
    };
    let store = Store::open(store)?.under(name);
    let repository = Repository::create(store, "sample-types").await?;
    let samples = [
        arrays::every_type()?,
        arrays::every_codec()?,
        arrays::corner_cases()?,
    ]
    .concat();
    let transaction = Transaction::begin(&repository, &"main".parse()?).await?;
    for sample in &samples {
        sample.store(&transaction).await?;
    }
    transaction.commit(CommitOptions::default()).await?;
    let truth: Vec<Value> = samples.iter().map(describe).collect();
    std::fs::write(format!("{folder}/arrays.json"), serde_json::to_vec(&truth)?)?;
    Ok(())
}

fn describe(sample: &SampleArray) -> Value {
    let values = match &sample.elements {
        Elements::Fixed(bytes) => json!(STANDARD.encode(bytes)),
        Elements::Variable(elements) => {
            json!(
                elements
                    .iter()
                    .map(|element| STANDARD.encode(element))
                    .collect::<Vec<_>>()
            )
        }
    };
    json!({
        "path": sample.path,
        "data_type": sample.metadata.data_type.to_json(),
        "dtype": sample.metadata.data_type.numpy_descr(),
        "shape": sample.metadata.shape(),
        "values": values,
    })
}

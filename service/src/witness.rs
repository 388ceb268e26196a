//! Witnesses: others who sign the log's heads after checking that it only grows.
//!
//! Spec: C2SP `tlog-witness`, `add-checkpoint`.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::StatusCode;
use storage::Repository;
use storage::tlog::{Checkpoint, KeyKind, VerifierKey};

/// How long a witness may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How often a witness is asked about one head: it says which one it knows, and then should sign.
const ROUNDS: u32 = 3;
/// Longest answer, in bytes.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// A witness and what is known of it.
#[derive(Debug)]
pub struct Witness {
    key: VerifierKey,
    url: String,
    http: reqwest::Client,
    /// The size of the last head it signed, by origin.
    signed: Mutex<HashMap<String, u64>>,
}

impl Clone for Witness {
    /// One that knows nothing yet.
    fn clone(&self) -> Self {
        Self {
            key: self.key.clone(),
            url: self.url.clone(),
            http: self.http.clone(),
            signed: Mutex::default(),
        }
    }
}

impl FromStr for Witness {
    type Err = String;

    /// Reads `VKEY,URL`.
    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.find(",http").map(|at| text.split_at(at));
        let Some((key, url)) = parts else {
            return Err("expected VKEY,URL: the witness's key and where it takes heads".into());
        };
        let key: VerifierKey = key.parse()?;
        if key.kind() != KeyKind::Cosignature {
            return Err(format!(
                "{} is a log's key; that of a witness begins with B after its last +",
                key.name()
            ));
        }
        Ok(Self {
            key,
            url: url[1..].trim_end_matches('/').to_owned(),
            http: reqwest::Client::new(),
            signed: Mutex::default(),
        })
    }
}

impl Witness {
    /// Its key.
    pub fn key(&self) -> &VerifierKey {
        &self.key
    }

    /// Has it sign a head that is stored.
    ///
    /// # Errors
    /// Why it has not.
    pub async fn cosign(
        &self,
        repository: &Repository,
        checkpoint: &Checkpoint,
    ) -> Result<String, String> {
        let head = &checkpoint.head;
        let signed = || self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut old = signed().get(&head.origin).copied().unwrap_or(0);
        for _ in 0..ROUNDS {
            if old > head.size {
                return Err(format!("it knows a head of {old} entries already"));
            }
            let proof = repository.consistency_proof(old, head.size).await;
            let proof = proof.map_err(|error| error.to_string())?;
            let proof: String = proof.iter().map(|hash| format!("{hash}\n")).collect();
            let body = format!("old {old}\n{proof}\n{checkpoint}");
            let (status, answer) = self.ask(body).await?;
            match status {
                StatusCode::OK => {
                    let mut cosigned = checkpoint.note.clone();
                    if !cosigned.add_signatures(&answer, &self.key)? {
                        return Err("its answer has no signature of its key".into());
                    }
                    signed().insert(head.origin.clone(), head.size);
                    return Ok(answer);
                }
                StatusCode::CONFLICT => {
                    let size = answer.trim_end().parse().ok();
                    old = match size {
                        Some(size) if size != old => size,
                        _ => return Err("it knows another head of this size".into()),
                    };
                }
                StatusCode::NOT_FOUND => return Err(format!("it does not know {}", head.origin)),
                StatusCode::FORBIDDEN => return Err("it knows another key of this log".into()),
                status => return Err(format!("it answered {status}: {}", answer.trim_end())),
            }
        }
        Err("it keeps signing other heads".into())
    }

    /// Adds a witness's answer to a checkpoint.
    ///
    /// # Errors
    /// If it is none.
    pub fn add(&self, answer: &str, checkpoint: &mut Checkpoint) -> Result<bool, String> {
        checkpoint.note.add_signatures(answer, &self.key)
    }

    async fn ask(&self, body: String) -> Result<(StatusCode, String), String> {
        let failed = |error: reqwest::Error| crate::error::chain(&error);
        let request = self
            .http
            .post(format!("{}/add-checkpoint", self.url))
            .timeout(TIMEOUT)
            .body(body);
        let mut response = request.send().await.map_err(failed)?;
        let mut answer = Vec::new();
        while let Some(part) = response.chunk().await.map_err(failed)? {
            answer.extend_from_slice(&part);
            if answer.len() > MAX_ANSWER_BYTES {
                return Err("its answer is too long".into());
            }
        }
        let answer = String::from_utf8(answer).map_err(|_| "its answer is no text")?;
        Ok((response.status(), answer))
    }
}

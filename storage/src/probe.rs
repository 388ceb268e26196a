//! Whether a store keeps the promise that commits rest on: of several writers of one name, one wins,
//! and what it wrote stays.
//!
//! ```text
//! write the same new name from RACERS sides at once ─► one is told that it created the object
//! write it once more                                ─► told that it is there
//! read it                                           ─► what the winner wrote
//! delete it
//! ```
//!
//! The name is new each time, so probes of several processes do not meet. It cannot show that a store
//! never loses a race, only catch one that ignores the condition or loses races often.

use std::time::Duration;

use bytes::Bytes;
use object_store::Error as StoreError;
use tracing::warn;
use uuid::Uuid;

use crate::durable::NotWritten;
use crate::store::{Put, Store, is_refusal};
use crate::{Error, advice, error};

/// Writers of the first round.
const RACERS: usize = 4;
/// Probes before an unclear outcome is one.
const ATTEMPTS: usize = 3;
const PAUSE: Duration = Duration::from_millis(300);
/// What the names of probes begin with: no repository can be called so.
const NAME: &str = "_probe-";

/// What a probe showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Objects are created once, and what was written is read.
    Sound {
        /// The object of the probe, if these credentials may not delete it. It can go at any time.
        left: Option<String>,
    },
    /// These credentials may read and not write.
    ReadOnly,
    /// It does not honour put-if-absent: commits would be lost.
    Unsound {
        /// What it did.
        reason: String,
    },
}

impl Store {
    /// Tries whether the store creates objects once, with seven requests and one object, which is
    /// deleted. Where writing is not allowed, one request more tells whether reading is.
    ///
    /// # Errors
    /// [`Error::Store`] if it did not answer clearly, or allows neither writing nor reading.
    pub async fn probe(&self) -> Result<Probe, Error> {
        let mut attempt = 1;
        loop {
            match self.probe_once().await {
                Err(error) if attempt < ATTEMPTS && is_passing(&error) => {
                    let error = error::chain(&error);
                    warn!(attempt, %error, "the store gave no clear answer, probing again");
                }
                result => return result,
            }
            tokio::time::sleep(PAUSE * 2u32.pow(attempt as u32)).await;
            attempt += 1;
        }
    }

    async fn probe_once(&self) -> Result<Probe, Error> {
        let key = format!("{NAME}{}", Uuid::new_v4());
        let found = self.race(&key).await;
        match found {
            Ok(Some(reason)) => {
                self.clean_up(&key).await;
                Ok(Probe::Unsound { reason })
            }
            Ok(None) => Ok(Probe::Sound {
                left: self.clean_up(&key).await,
            }),
            Err(Error::Store { source, .. }) if is_denied(&source) => {
                // Nothing is there, so nothing is to be deleted.
                self.get(&key).await.map(|_| Probe::ReadOnly)
            }
            Err(error) => {
                self.clean_up(&key).await;
                Err(error)
            }
        }
    }

    /// What is wrong with how the store creates `key`.
    async fn race(&self, key: &str) -> Result<Option<String>, Error> {
        let value = |writer: usize| Bytes::from(format!("probe of writer {writer}\n"));
        let puts = (0..RACERS).map(|writer| self.put_as_shard(key, value(writer)));
        let puts: Vec<Put> = futures::future::try_join_all(puts).await?;
        let won: Vec<usize> = (0..RACERS)
            .filter(|writer| puts[*writer] == Put::Created)
            .collect();
        let late = self.put_as_shard(key, value(RACERS)).await?;
        let found = self.get(key).await?;
        Ok(judge(&won, late, found.as_ref(), value))
    }

    /// Deletes the object of a probe; its key if that did not go.
    async fn clean_up(&self, key: &str) -> Option<String> {
        let deleted = self.delete(vec![key.to_owned()]).await;
        let error = deleted.err()?;
        let error = error::chain(&error);
        warn!(%key, %error, "the object of a probe could not be deleted");
        Some(key.to_owned())
    }
}

/// What is wrong with a store where these writers were told that they created an object, a later one
/// got the answer `late`, and this was read.
fn judge(
    won: &[usize],
    late: Put,
    found: Option<&Bytes>,
    value: impl Fn(usize) -> Bytes,
) -> Option<String> {
    let by = |writer: usize| found == Some(&value(writer));
    match (won, late) {
        (_, Put::Created) if !won.is_empty() => {
            Some("it created an object a second time, over the first".to_owned())
        }
        ([], Put::Created) => (!by(RACERS)).then(|| READ_OTHER.to_owned()),
        // Each was told that another one won: answers were lost, and one of them did.
        ([], Put::AlreadyThere) => (!(0..RACERS).any(by)).then(|| READ_OTHER.to_owned()),
        ([winner], _) => (!by(*winner)).then(|| READ_OTHER.to_owned()),
        (won, _) => Some(format!(
            "it told {} writers of one object that they had created it",
            won.len()
        )),
    }
}

const READ_OTHER: &str = "it does not read what the writer wrote who created the object";

/// Whether the store answered that this may not be done, by whoever this is.
pub(crate) fn is_denied(error: &StoreError) -> bool {
    match error {
        StoreError::PermissionDenied { .. } => true,
        StoreError::Generic { source, .. } => source
            .downcast_ref::<NotWritten>()
            .is_some_and(NotWritten::is_denied),
        _ => false,
    }
}

/// Whether the same request may succeed a moment later: nothing is known to be wrong.
fn is_passing(error: &Error) -> bool {
    match error {
        Error::Store { source, .. } => {
            let is_final = matches!(source, StoreError::NotFound { .. });
            !is_final && !is_refusal(source) && advice(error).is_none()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_stores_that_create_once_are_sound() {
        use Put::{AlreadyThere, Created};
        let value = |writer: usize| Bytes::from(vec![writer as u8]);
        for (won, late, found, is_sound) in [
            (&[2][..], AlreadyThere, Some(2), true),
            (&[], AlreadyThere, Some(1), true),
            (&[], Created, Some(RACERS), true),
            (&[2], AlreadyThere, Some(1), false),
            (&[2], AlreadyThere, None, false),
            (&[2], AlreadyThere, Some(RACERS), false),
            (&[2], Created, Some(RACERS), false),
            (&[2], Created, Some(2), false),
            (&[0, 1], AlreadyThere, Some(0), false),
            (&[0, 1, 2, 3], Created, Some(RACERS), false),
            (&[], AlreadyThere, None, false),
            (&[], AlreadyThere, Some(RACERS), false),
            (&[], Created, Some(0), false),
        ] {
            let bytes = found.map(value);
            let reason = judge(won, late, bytes.as_ref(), value);
            assert_eq!(reason.is_none(), is_sound, "{won:?} {late:?} {found:?}");
        }
    }
}

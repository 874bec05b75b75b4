//! One call of a confirmer that may do anything: panic, or answer nonsense.

use crate::confirm::inline::at_once;
use crate::confirm::{
    Answer, AsyncConfirmer, OwnedStore, Rule, Sighting, StoreError, StoreErrorKind, panics,
};
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

/// Asks about sightings: as many answers, each of which can be.
pub(super) async fn ask(
    confirmer: &impl AsyncConfirmer,
    sightings: &[Sighting<'_>],
    rule: Rule,
) -> Result<Vec<Answer>, StoreError> {
    let answers = caught(async { confirmer.confirm(sightings, rule).await }).await?;
    checked(answers, sightings, rule)
}

/// Records sightings in a store that is owned, and nothing else: a panic becomes an
/// error.
pub(crate) fn write(owned: &dyn OwnedStore, sightings: &[Sighting<'_>]) -> Result<(), StoreError> {
    at_once(caught(async { owned.record(sightings) }))
}

/// The result of a call; a panic in it becomes an error.
pub(crate) async fn caught<T>(
    call: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let panicked = |message| Err(faulty(format!("the confirmer panicked: {message}")));
    catching(call).await.unwrap_or_else(panicked)
}

/// What a call comes to, or the message of a panic in it.
///
/// The call begins with the first poll, so that a panic before its future is made
/// is caught too. After a panic it is not polled again.
pub(crate) async fn catching<T>(call: impl Future<Output = T>) -> Result<T, String> {
    let mut call = pin!(call);
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(context))) {
        Ok(polled) => polled.map(Ok),
        Err(panic) => Poll::Ready(Err(panics::message(&*panic))),
    })
    .await
}

fn checked(
    answers: Vec<Answer>,
    sightings: &[Sighting<'_>],
    rule: Rule,
) -> Result<Vec<Answer>, StoreError> {
    if answers.len() != sightings.len() {
        let (given, due) = (answers.len(), sightings.len());
        return Err(faulty(format!("the confirmer gave {given} answers to {due} sightings")));
    }
    for (answer, sighting) in answers.iter().zip(sightings) {
        if let Answer::Seen(seen) = *answer
            && !rule.matches(seen, sighting.bucket)
        {
            return Err(faulty(format!(
                "the confirmer called a key seen in bucket {}, which is too long ago for bucket {}",
                seen.number(),
                sighting.bucket.number()
            )));
        }
    }
    Ok(answers)
}

fn faulty(cause: String) -> StoreError {
    StoreError::new(StoreErrorKind::Faulty, cause)
}

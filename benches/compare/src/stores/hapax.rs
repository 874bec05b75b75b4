//! The embedded confirmer, as write-behind would use it.

use super::{Durability, Key, Outcome, Store};
use hapax::Window;
use hapax::confirm::{
    self, Answer, Bucket, Confirmer as _, EmbeddedConfirmer, OwnedStore as _, Rule, Sighting, Token,
};
use std::path::Path;
use std::time::Duration;

pub(super) struct Hapax {
    confirmer: EmbeddedConfirmer,
    rule: Rule,
}

impl Hapax {
    pub(super) fn open(folder: &Path, durability: Durability) -> Outcome<Self> {
        let durability = match durability {
            Durability::Os => confirm::Durability::Os,
            Durability::Synced => confirm::Durability::Synced,
        };
        let path = folder.join("keys.hapax");
        let confirmer = EmbeddedConfirmer::builder(path).durability(durability).open()?;
        let rule = Rule::of(&Window::fixed(Duration::from_secs(600)).buckets(8));
        Ok(Self { confirmer, rule })
    }
}

impl Store for Hapax {
    fn write(&mut self, bucket: u64, keys: &[Key]) -> Outcome {
        let bucket = Bucket::new(bucket as i64);
        let keys = keys.iter().map(Key::as_slice);
        let sightings: Vec<_> =
            keys.map(|key| Sighting { key, bucket, token: Token::new(1) }).collect();
        Ok(self.confirmer.record(&sightings)?)
    }

    /// By asking, so a miss includes that the key is recorded.
    fn find(&self, newest: u64, key: &Key) -> Outcome<bool> {
        let sighting = Sighting { key, bucket: Bucket::new(newest as i64), token: Token::new(2) };
        let answers = self.confirmer.confirm(&[sighting], self.rule)?;
        Ok(matches!(answers.as_slice(), [Answer::Seen(_)]))
    }

    fn drop_oldest(&mut self) -> Outcome {
        Ok(self.confirmer.expire(Bucket::new(1))?)
    }
}

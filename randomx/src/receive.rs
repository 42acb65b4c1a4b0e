//! A dataset that comes from elsewhere, piece after piece. It is believed only after random items of it were computed from the
//! cache of its key.
#![allow(unsafe_code)]

use crate::region::Region;
use crate::{Build, Cache, DATASET_BYTES, DIGEST_BYTES, Dataset, Error, ITEM_BYTES, ITEMS, Origin, Pages};

/// A dataset of which only the beginning is there.
#[derive(Debug)]
pub struct Incoming {
    region: Region,
    largest: Pages,
    filled: usize,
}

impl Incoming {
    /// Allocates the memory.
    ///
    /// # Errors
    /// [`Error::DatasetMemory`]
    pub fn new(largest: Pages) -> Result<Self, Error> {
        let region = Region::new(DATASET_BYTES, largest).ok_or(Error::DatasetMemory)?;
        Ok(Self { region, largest, filled: 0 })
    }

    /// The next piece.
    ///
    /// # Errors
    /// [`Error::WrongLength`] when that would be more than a dataset, [`Error::Stopped`] when `build` says so.
    pub fn push(&mut self, piece: &[u8], build: &Build) -> Result<(), Error> {
        if build.is_stopped() {
            return Err(Error::Stopped);
        }
        let end = self.filled.checked_add(piece.len()).filter(|end| *end <= DATASET_BYTES).ok_or(Error::WrongLength)?;
        // SAFETY: the region is that large, and nobody else has it.
        unsafe {
            let place = self.region.memory().as_ptr().add(self.filled);
            place.copy_from_nonoverlapping(piece.as_ptr(), piece.len());
        }
        build.progressed(end / ITEM_BYTES - self.filled / ITEM_BYTES);
        self.filled = end;
        Ok(())
    }

    /// The dataset, after its digest was compared with the accepted one, where that is known, on up to `threads` threads; and the
    /// items named by `checked` (of any number, as random as the sender must not foresee) with those computed from `cache`.
    ///
    /// # Errors
    /// [`Error::WrongLength`], [`Error::WrongDigest`], [`Error::WrongItem`]
    pub fn finish(
        self,
        cache: &Cache,
        accepted: Option<[u8; DIGEST_BYTES]>,
        threads: usize,
        checked: impl Iterator<Item = u64>,
    ) -> Result<Dataset, Error> {
        if self.filled != DATASET_BYTES {
            return Err(Error::WrongLength);
        }
        let dataset = Dataset::of(self.region, self.largest, Origin::Received);
        if accepted.is_some_and(|accepted| dataset.digest(threads) != accepted) {
            return Err(Error::WrongDigest);
        }
        for index in checked.map(|number| (number % ITEMS as u64) as usize) {
            if dataset.bytes()[index * ITEM_BYTES..][..ITEM_BYTES] != cache.item(index) {
                return Err(Error::WrongItem(index));
            }
        }
        Ok(dataset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_dataset_is_refused() {
        let cache = Cache::new(b"test key 000").unwrap();
        let build = Build::new(1);
        let incoming = Incoming::new(Pages::Small).unwrap();
        assert_eq!(incoming.finish(&cache, None, 1, 0..1).unwrap_err(), Error::WrongLength);
        let mut incoming = Incoming::new(Pages::Small).unwrap();
        incoming.push(&cache.item(0), &build).unwrap();
        incoming.push(&[1; 6], &build).unwrap();
        incoming.filled = DATASET_BYTES;
        assert_eq!(incoming.push(&[0], &build).unwrap_err(), Error::WrongLength);
        assert_eq!(incoming.finish(&cache, None, 1, [0, 5].into_iter()).unwrap_err(), Error::WrongItem(5));
        build.stop();
        assert_eq!(Incoming::new(Pages::Small).unwrap().push(&[0], &build).unwrap_err(), Error::Stopped);
    }
}

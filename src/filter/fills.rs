//! How many keys each generation has in a slice.

/// How many keys a generation has in a slice.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fill {
    pub(super) keys: u32,
    /// With so many keys there must be a look at what else it may take.
    pub(super) room: u32,
}

impl Fill {
    #[inline]
    pub(super) const fn has_room(self) -> bool {
        self.keys < self.room
    }
}

/// The fills of all generations. That of the newest bucket's, in which nearly
/// all new keys are counted, is kept beside the others: one cache line less in
/// each check of a new key.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Fills {
    newest: Fill,
    newest_generation: u32,
    others: Box<[Fill]>,
}

impl Fills {
    /// Without keys, as of a newest generation.
    pub(super) fn new(generations: u32, newest_generation: u32) -> Self {
        let others = vec![Fill::default(); generations as usize].into();
        Self { newest: Fill::default(), newest_generation, others }
    }

    /// The fill of a generation.
    #[inline]
    pub(super) fn of(&self, generation: u32) -> Fill {
        if generation == self.newest_generation {
            self.newest
        } else {
            self.others[generation as usize]
        }
    }

    /// That of the newest generation, to be changed.
    #[inline]
    pub(super) fn newest_mut(&mut self) -> &mut Fill {
        &mut self.newest
    }

    /// The fill of a generation, to be changed.
    #[inline]
    pub(super) fn of_mut(&mut self, generation: u32) -> &mut Fill {
        if generation == self.newest_generation {
            &mut self.newest
        } else {
            &mut self.others[generation as usize]
        }
    }

    /// Makes another generation the newest one; all keep their fills.
    pub(super) fn turn_to(&mut self, generation: u32) {
        self.others[self.newest_generation as usize] = self.newest;
        self.newest = self.others[generation as usize];
        self.newest_generation = generation;
    }
}

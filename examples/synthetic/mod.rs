//! What the sample generators share: chance, the calendar and their arguments.

pub(crate) mod arguments;
pub(crate) mod calendar;
pub(crate) mod random;

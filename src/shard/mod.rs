//! One lock and all that it protects.

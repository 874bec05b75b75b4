//! The exact tier.

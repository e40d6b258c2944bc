//! Each kernel against its oracle on the adapter at hand.

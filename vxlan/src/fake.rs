//! A kernel of values.

//! Tests with real kernels.

//! The state machine of one peer (RFC 4271 §8), without IO and without a clock.
//!
//! The driver calls [`Session::handle`] with what happened and [`Session::handle_timeout`] when the deadline
//! of [`Session::poll_timeout`] has come, then drains [`Session::poll_output`].

//! Routing information bases (RFC 4271 §3.2); pure.

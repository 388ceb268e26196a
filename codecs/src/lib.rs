//! Encoded chunk bytes to elements and back; the self-verifying shard

//! The read path: plan, fetch, decode, assemble or reduce

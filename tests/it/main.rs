//! Behaviour of Quarr through its public surface.

//! The quarr binary: HTTP service and command line

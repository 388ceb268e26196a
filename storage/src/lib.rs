//! Versions of a hierarchy of arrays in an object store: log, refs, commits, trees, manifests

//! Reductions and kernels over decoded elements

"""Quarr for Python: so far, the independent verifier of proofs."""

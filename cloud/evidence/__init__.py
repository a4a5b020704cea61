"""Evidence for officers to read and for third parties to check: rows, and the proofs of them."""

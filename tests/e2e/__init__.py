"""The programs as processes, as a branch runs them."""

"""Benchmarks, each beside a ceiling or a peer that is measured in the same run; and the demo."""

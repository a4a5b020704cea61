"""Tests of the journal: commits, receipts, recovery, crashes."""

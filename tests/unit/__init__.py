"""Tests of single parts: no network, no server, no process."""

"""Criteria: arrays in, scores out. One per file."""

"""A plan and what was measured -> one value, as JSON and as tables."""

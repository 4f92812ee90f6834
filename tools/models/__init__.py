"""What `tools/make_models.py` runs: data sources, and one training script per framework."""

from __future__ import annotations


class ModelsError(Exception):
    """One sentence for the person who typed the command."""

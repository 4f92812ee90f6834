"""Trials: every part of a model pruned alone, here, in processes or on a cluster, and kept."""

"""From scores to what is kept."""

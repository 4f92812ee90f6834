"""What pruning in one shot is measured on: tasks, peers, and rows of a table."""

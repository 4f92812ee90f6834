"""Models in the runtimes that they are deployed with, each run in a process of its own."""

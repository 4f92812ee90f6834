"""One file per command: options in, a table or JSON out."""

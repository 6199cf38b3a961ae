"""Linear layers, one file for each kind."""

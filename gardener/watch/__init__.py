"""What there is to see of a ring while it works: read from the holder, for terminal and page."""

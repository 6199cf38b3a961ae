"""What produced the numbers in the docs."""

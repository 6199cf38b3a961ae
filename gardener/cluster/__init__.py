"""A cluster that describes itself: one file that says which machine holds what, and its checks."""

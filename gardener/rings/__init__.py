"""Ways to come by a ring."""

"""Stage 0: sessions over one ring, from a prompt to text."""

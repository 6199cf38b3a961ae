"""`gardener chat`: several turns in the terminal, with a ring that stays open or with a server."""

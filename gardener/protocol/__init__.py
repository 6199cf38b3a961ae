"""What peers say to each other, and when: messages, frames and checks; no socket, no clock."""

"""What peers say to each other, and when: messages, frames, and a link without its socket.

Nothing here asks for the time or waits: `connection` is told what happens and when.
"""

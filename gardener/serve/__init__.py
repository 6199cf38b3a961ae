"""An HTTP server over one ring: OpenAI's interface, on the sessions of the holder."""

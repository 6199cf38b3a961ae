"""What becomes of answers while stages are killed, processes stand still and links break."""

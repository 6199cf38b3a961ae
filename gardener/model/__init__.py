"""The target model's arithmetic: blocks, KV cache, kernels, and checkpoints on disk."""

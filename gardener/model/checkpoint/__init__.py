"""Model folders: names to folders, and folders to tensors."""

"""What turns files and raw inputs into tensors."""

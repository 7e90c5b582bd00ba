"""What is kept, and whether to trust it."""

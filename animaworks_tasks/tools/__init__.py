"""What can be called, and how it is described."""

"""Where tasks are kept: the protocol, the directory, the memory."""

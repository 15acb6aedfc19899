"""Lives in the host, and decides what runs next."""

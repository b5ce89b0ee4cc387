"""Facts about the server, and what they mean."""

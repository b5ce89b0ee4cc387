"""The flows that come with Baton, and their handlers. Each is also an example to copy; run one by its name."""

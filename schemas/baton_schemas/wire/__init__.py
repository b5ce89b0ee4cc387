"""What is in the log: messages, names, and the codec."""

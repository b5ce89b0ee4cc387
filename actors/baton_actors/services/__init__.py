"""The steward and the clerk."""

"""The console: local pages on which people see runs as they happen, find causes, and act. `baton console`."""

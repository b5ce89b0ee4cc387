"""The index: the runs of a namespace as rows in SQLite, made of the log and never the truth."""

"""Workers as processes: worker, hosting, main, supervisor, logs, signals."""

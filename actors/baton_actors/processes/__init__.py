"""Workers as processes: what one does (worker, hosting, main), and who starts, watches and ends them (supervisor)."""

"""What people see of runs and flows. Pure but for `progress.py`: state in, lines and tables out."""

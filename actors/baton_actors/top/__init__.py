"""The console in a terminal: runs, steps, queues and what waits for people, with the keys and words of its pages."""

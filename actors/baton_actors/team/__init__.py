"""From Python: a team of actors inside a program, or the way to one that runs elsewhere; flows without a file."""

"""What people ask of runs, before it is done: facts that the commands and the console both tell."""

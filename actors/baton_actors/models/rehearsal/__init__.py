"""The rehearsal model: the Messages API inside this process, answered from the prompt's own text."""

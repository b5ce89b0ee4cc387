"""What the engine needs, as verbs: log, blobs, timers, counters."""

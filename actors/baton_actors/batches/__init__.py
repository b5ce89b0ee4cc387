"""Batches of model calls: gathered, sent once, and looked after until each step has its answer."""

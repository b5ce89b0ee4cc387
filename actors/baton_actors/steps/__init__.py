"""A handoff from arrival to its settling."""

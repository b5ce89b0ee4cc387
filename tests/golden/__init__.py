"""Logs of released versions, which must keep replaying; `python -m tests.golden` writes those of a new version."""

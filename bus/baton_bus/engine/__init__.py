"""Applies what the lifecycle decided."""

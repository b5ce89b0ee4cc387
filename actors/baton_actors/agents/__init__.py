"""Kinds of agents, and loading them. Knows no bus."""

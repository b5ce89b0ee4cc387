"""`python -m baton_actors.cli`, for when the command `baton` is not on PATH."""

from baton_actors.cli import script

if __name__ == "__main__":
    script()

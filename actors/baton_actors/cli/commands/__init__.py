"""The commands: a module per group, imported when one of its commands is called. `app.py` lists them."""

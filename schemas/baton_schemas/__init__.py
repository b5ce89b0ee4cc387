"""Messages, flows and state of Baton: pure, no I/O."""

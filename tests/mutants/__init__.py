"""Changes to a copy of the code, each of which breaks a promise, and the tests that must notice."""

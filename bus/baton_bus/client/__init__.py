"""What a program outside uses."""

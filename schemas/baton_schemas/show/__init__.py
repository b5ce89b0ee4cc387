"""What people read of it: lines and exports."""

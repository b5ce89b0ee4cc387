"""What people read of it: lines, what a step got and gave, errors, exports."""

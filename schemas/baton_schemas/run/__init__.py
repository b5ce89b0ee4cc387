"""What follows: the lifecycle, joins, what is carried, state, fold, fork."""

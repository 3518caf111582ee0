"""What statuses mean: pure functions and values, without I/O and without a clock."""

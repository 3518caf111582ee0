"""What the tracker does per second on this machine, beside a bare loop that keeps no state."""

"""What happens to the records of each input topic."""

"""What is stored, each table in a module of its own."""

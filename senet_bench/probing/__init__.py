"""What a block can do, on small generated tasks."""

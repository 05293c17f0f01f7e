"""What is built, measured and stored, as facts and typed rows; free of torch."""

"""Data to try things on: one story that can be solved, and stores of any size. Written as real journals."""

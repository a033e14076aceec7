"""What runs inside a training process. Standard library only; imports nothing else of mltrack."""

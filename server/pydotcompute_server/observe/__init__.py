"""What can be seen of a running daemon from outside."""

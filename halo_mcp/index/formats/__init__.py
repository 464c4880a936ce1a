"""One module per input shape; each turns its input into canonical JSON lines."""

"""The implementations of the operations, one module each."""

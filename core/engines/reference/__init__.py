"""The reference engine: each operation of operations.py in readable numpy; the tests' oracle."""

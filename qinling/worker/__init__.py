"""The server inside a worker. Standard library only, and nothing else of qinling."""

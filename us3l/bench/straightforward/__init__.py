"""The same results the way one writes them down at first: what ours is measured against. One idea a file."""

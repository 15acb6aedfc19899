"""The only room that touches the disk: files, locks, where things lie, JSON."""

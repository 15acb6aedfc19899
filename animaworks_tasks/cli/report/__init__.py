"""``animaworks-tool report``: one HTML page about many tasks."""

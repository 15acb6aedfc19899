"""What a task is: frozen data, its states, its bytes."""

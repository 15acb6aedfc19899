"""What finished tasks leave for the agent: how it reads, and where it waits."""

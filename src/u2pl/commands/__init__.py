"""What each command does, a file a command, and the folder of a run."""

"""What a user did wrong, said in one line. The command line prints it and exits with code 2."""


class InputError(Exception):
    """Bad input: the message is one line that names the file or key, what is wrong, and the remedy."""

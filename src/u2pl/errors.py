"""User errors. The command line prints them in one line and exits with code 2."""


class InputError(Exception):
    """Bad input. The message is one line: the file or key, what is wrong, and the remedy."""

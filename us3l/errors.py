"""The one exception that stands for a mistake its reader can mend."""


class UserError(Exception):
    """What is wrong, where, and what would be right, in one sentence; the command line exits with code 2."""

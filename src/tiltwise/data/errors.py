"""The errors a user is meant to read: one line that says what is wrong, where, and what to do."""


class InputError(ValueError):
    """A file or a value given by the user is at fault; the message names it and the fault in one line."""


class StageError(RuntimeError):
    """A stage cannot give a result it would stand behind; the message says why in one line."""


def machine_fault(error: OSError) -> str:
    """What the machine refused, in one line: the file, where it is known, and the cause, as a disk that is full."""
    text = error.strerror or str(error) or type(error).__name__
    return " ".join((f"{error.filename}: {text}" if error.filename else text).split())

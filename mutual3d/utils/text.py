"""Text for a terminal or a log: what a stranger put into a file's name or a file is shown, not obeyed."""


def printable(text: object, keep: str = "") -> str:
    """`str(text)` with every character that shows nothing by itself written as Python writes it: `\\x1b`, `\\u202e`, `\\n`.

    Those are control characters, which move the cursor or colour a terminal, line ends of any kind, marks that turn the
    direction of writing, and the halves of characters that stand for bytes of a file name that is not UTF-8. `keep`:
    characters to leave as they are, such as a line end in a message of several lines.
    """
    return "".join(
        character if character.isprintable() or character in keep else character.encode("unicode_escape").decode()
        for character in str(text)
    )

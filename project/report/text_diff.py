"""Word-level difference of two texts."""

import difflib


def word_diff(before: str, after: str) -> list[tuple[str, str]]:
    """Return (kind, words) in reading order; the kinds are equal, delete and insert.

    Without inserts the result is the text before, without deletes the text after, up to white space.
    """
    old, new = before.split(), after.split()
    runs = []
    for kind, a, b, c, d in difflib.SequenceMatcher(a=old, b=new, autojunk=False).get_opcodes():
        if kind == "equal":
            runs.append(("equal", " ".join(old[a:b])))
            continue
        runs += [(name, " ".join(words)) for name, words in (("delete", old[a:b]), ("insert", new[c:d])) if words]
    return runs

"""A reward that nobody should train with: it is here so that `owlcap compare` has something to find."""


def words(caption: str) -> float:
    """The number of words."""
    return float(len(caption.split()))

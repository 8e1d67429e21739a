"""The body that is drawn: SMPL and SMPL-X from the user's files, or a synthetic one of the same format."""

from motion.body.load import load_body
from motion.body.model import Body, SmplArrays
from motion.body.synthetic import synthetic_body

__all__ = ["Body", "SmplArrays", "load_body", "synthetic_body"]

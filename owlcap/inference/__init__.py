"""One policy, one video, one caption: `caption_video`, and what it is made of."""

from owlcap.inference.caption import caption_video
from owlcap.inference.settings import PolicySettings

__all__ = ["PolicySettings", "caption_video"]

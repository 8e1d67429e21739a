"""HMI's pipeline: clips of one person who moves, captions on three levels, questions (M-ACM, section 3)."""

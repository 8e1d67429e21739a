"""HMD-270K's pipeline: Motion-Detail Fusion, then Fine-Grained Examination (OwlCap, section 3.2)."""

"""The human-motion pathway (M-ACM): from a video to pictures of its key frames with a body drawn over the person.

    frames -> motion.pose (key points) -> motion.sampling (key frames) -> motion.fitting (body) -> motion.overlay

`motion.extract` joins the parts for one clip, `motion.actor` and `motion.dataset` for many on Ray. docs/motion.md
"""

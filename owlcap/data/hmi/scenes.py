"""Scene cuts of a source video: PySceneDetect's content detector."""

from __future__ import annotations

from owlcap.config_data import ScenesSection
from owlcap.data.video_backends import BROKEN_CURE
from owlcap.errors import ConfigError, VideoError


def find_scenes(path: str, settings: ScenesSection) -> list[tuple[float, float]]:
    """Start and end of each scene, in seconds; one scene where nothing is cut.

    Raises:
        VideoError: the video cannot be opened.
        ConfigError: scenedetect is not installed.
    """
    try:
        from scenedetect import ContentDetector, SceneManager, open_video
        from scenedetect.video_stream import VideoOpenFailure
    except ImportError as error:
        raise ConfigError(
            "the package scenedetect is not installed", cure="install owlcap's extra `data`: pip install 'owlcap[data]'"
        ) from error
    try:
        video = open_video(path, backend="pyav")
    except (VideoOpenFailure, OSError, ValueError) as error:
        raise VideoError(f"the video cannot be opened: {error}", where=path, cure=BROKEN_CURE) from error
    manager = SceneManager()
    length = max(1, round(settings.min_scene_s * float(video.frame_rate)))
    manager.add_detector(ContentDetector(settings.threshold, min_scene_len=length))
    manager.detect_scenes(video, frame_skip=settings.frame_skip)
    return [(start.seconds, end.seconds) for start, end in manager.get_scene_list(start_in_scene=True)]

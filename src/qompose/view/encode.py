"""Pictures one after the other as a file: MP4 through PyAV, GIF through Pillow."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from qompose.types import QomposeError

CODECS = ("libx264", "h264", "mpeg4")  # the first that there is: builds without x264 have their own H.264, or none


class Film(ABC):
    """A file in the making."""

    codec: str

    @abstractmethod
    def cut(self) -> None:
        """Say that the next picture begins another scene."""

    @abstractmethod
    def add(self, picture: Image.Image) -> None:
        """Append a picture; one of another size than the first is fitted into that."""

    @abstractmethod
    def finish(self) -> None:
        """Write what is still missing and close the file."""

    @abstractmethod
    def abandon(self) -> None:
        """Close the file, whatever is in it."""


class Mp4(Film):
    """H.264 where there is an encoder for it, in 4:2:0, which is what every player takes."""

    def __init__(self, path: Path, fps: float) -> None:
        """Open the file; raises QomposeError without PyAV."""
        try:
            import av
        except ImportError:
            raise QomposeError(f"{path.suffix} needs PyAV: pip install av, or record a .gif instead") from None
        self._av, self.codec = av, mp4_codec()
        self._container = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
        self._stream: Any = self._container.add_stream(self.codec, rate=Fraction(fps).limit_denominator(1000))
        self._stream.pix_fmt = "yuv420p"
        self._size: tuple[int, int] | None = None

    def cut(self) -> None:
        """Nothing: the encoder sees for itself."""

    def add(self, picture: Image.Image) -> None:
        """Encode a picture. 4:2:0 needs even sides: an odd last row or column is lost."""
        if self._size is None:
            self._size = (picture.width // 2 * 2, picture.height // 2 * 2)
            self._stream.width, self._stream.height = self._size
        frame = self._av.VideoFrame.from_image(_fit(picture, self._size))
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        """Flush the encoder and close the file."""
        self._container.mux(self._stream.encode())
        self._container.close()

    def abandon(self) -> None:
        """Close the file; a film without pictures cannot even be closed properly."""
        with suppress(Exception):
            self._container.close()


class Gif(Film):
    """256 colours: three quarters from the first picture of each scene, the others for what comes later."""

    codec = "gif"

    def __init__(self, path: Path, fps: float) -> None:
        """Remember where to write; times in a GIF are whole hundredths of a second."""
        self._path, self._milliseconds = path, max(20, 10 * round(100 / fps))
        self._pictures: list[Image.Image] = []
        self._palette: Image.Image | None = None

    def cut(self) -> None:
        """Choose the colours anew."""
        self._palette = None

    def add(self, picture: Image.Image) -> None:
        """Keep a picture: a byte per pixel until the file is written."""
        if self._pictures:
            picture = _fit(picture, self._pictures[0].size)
        if self._palette is None:
            self._palette = _choose_colours(picture)
        self._pictures.append(picture.quantize(palette=self._palette, dither=Image.Dither.NONE))

    def finish(self) -> None:
        """Write the file; it plays for ever."""
        first, *others = self._pictures
        first.save(self._path, save_all=True, append_images=others, duration=self._milliseconds, loop=0)
        self.abandon()

    def abandon(self) -> None:
        """Forget the pictures."""
        self._pictures = []


FORMATS: dict[str, Callable[[Path, float], Film]] = {".mp4": Mp4, ".gif": Gif}


@contextmanager
def write_film(path: Path, fps: float, *, overwrite: bool = False) -> Iterator[Film]:
    """A film that appears under its name whole or not at all.

    Raises QomposeError for a suffix other than .mp4 and .gif, and if the file exists and must not be overwritten.
    """
    if path.suffix.lower() not in FORMATS:
        raise QomposeError(f"{path.name}: cannot write {path.suffix or 'a file without suffix'}; use .mp4 or .gif")
    _refuse_existing(path, overwrite)
    new = path.with_name(f".{path.stem}.{os.getpid()}.new{path.suffix.lower()}")
    film: Film | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        film = FORMATS[path.suffix.lower()](new, fps)
        yield film
        film.finish()
        _refuse_existing(path, overwrite)
        os.replace(new, path)
    except BaseException as error:
        if film is not None:
            film.abandon()
        with suppress(OSError):
            new.unlink()
        if isinstance(error, OSError):
            raise QomposeError(f"{path} cannot be written ({error.strerror or error})") from error
        raise


def _refuse_existing(path: Path, overwrite: bool) -> None:
    if path.is_dir() or (os.path.lexists(path) and not overwrite):
        raise QomposeError(f"{path} exists; choose another name, or overwrite it (--overwrite)")


def _fit(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    if picture.size == size:
        return picture
    if picture.width - size[0] in (0, 1) and picture.height - size[1] in (0, 1):
        return picture.crop((0, 0, *size))
    return ImageOps.pad(picture, size, color="white")


def _choose_colours(picture: Image.Image) -> Image.Image:
    own = picture.quantize(192, Image.Quantize.MEDIANCUT).getpalette() or []
    levels = (0, 85, 170, 255)
    cube = [level for red in levels for green in levels for blue in levels for level in (red, green, blue)]
    holder = Image.new("P", (1, 1))
    holder.putpalette(own[: 3 * 192] + cube)
    return holder


def mp4_codec() -> str:
    """The encoder that MP4 files are written with; needs PyAV."""
    import av

    for name in CODECS:
        try:
            return av.Codec(name, "w").name  # type: ignore[call-arg]
        except ValueError:
            continue
    raise QomposeError(f"PyAV has none of the encoders {', '.join(CODECS)}; record a .gif instead")

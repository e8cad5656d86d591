import sys

import numpy as np
import pytest
from PIL import Image, ImageSequence

from qompose.types import QomposeError
from qompose.view.encode import write_film


def picture(value, width=64, height=48):
    return Image.fromarray(np.full((height, width, 3), (value, 100, 255 - value), np.uint8))


VALUES = (0, 90, 170, 250)


def write(path, pictures, fps=20.0, **options):
    with write_film(path, fps, **options) as film:
        film.cut()
        for item in pictures:
            film.add(item)
    return film


def test_mp4_holds_the_pictures_in_order_at_the_given_speed(tmp_path):
    av = pytest.importorskip("av")
    film = write(tmp_path / "a.mp4", [picture(value) for value in VALUES])
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == 20 and stream.codec_context.pix_fmt == "yuv420p"
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert film.codec and [frame.shape for frame in frames] == [(48, 64, 3)] * len(VALUES)
    for frame, value in zip(frames, VALUES, strict=True):
        assert np.abs(frame.mean(axis=(0, 1)) - (value, 100, 255 - value)).max() < 16


def test_mp4_of_odd_size_loses_a_row_and_a_column(tmp_path):
    av = pytest.importorskip("av")
    write(tmp_path / "a.mp4", [picture(0, 65, 49)] * 2)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == (64, 48)


def test_gif_holds_the_pictures_in_order_at_the_given_speed_and_repeats(tmp_path):
    write(tmp_path / "a.GIF", [picture(value) for value in VALUES], fps=20.0)
    with Image.open(tmp_path / "a.GIF") as gif:
        assert gif.info["loop"] == 0
        frames = [
            (frame.info["duration"], frame.convert("RGB").getpixel((5, 5))) for frame in ImageSequence.Iterator(gif)
        ]
    assert [duration for duration, _ in frames] == [50] * len(VALUES)
    # Colours that the first picture lacks are still told apart.
    assert np.abs(np.array([colour for _, colour in frames]) - [(v, 100, 255 - v) for v in VALUES]).max() < 45
    assert frames[0][1] == (0, 100, 255)


def test_gif_takes_new_colours_for_a_new_scene(tmp_path):
    with write_film(tmp_path / "a.gif", 10.0) as film:
        for value in (0, 240):
            film.cut()
            film.add(picture(value))
    with Image.open(tmp_path / "a.gif") as gif:
        gif.seek(1)
        assert gif.convert("RGB").getpixel((5, 5)) == (240, 100, 15)


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_pictures_of_another_size_are_fitted_into_that_of_the_first(tmp_path, suffix):
    if suffix == ".mp4":
        pytest.importorskip("av")
    write(tmp_path / f"a{suffix}", [picture(0), picture(0, 32, 96), picture(0, 20, 20)])
    assert (tmp_path / f"a{suffix}").stat().st_size > 0


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
@pytest.mark.parametrize("when", [0, 1])
def test_nothing_is_left_when_filming_fails(tmp_path, suffix, when):
    if suffix == ".mp4":
        pytest.importorskip("av")
    with pytest.raises(RuntimeError, match="stop"), write_film(tmp_path / f"a{suffix}", 20.0) as film:
        for _ in range(when):
            film.add(picture(0))
        raise RuntimeError("stop")
    assert list(tmp_path.iterdir()) == []


def test_existing_file_is_kept_unless_it_may_be_replaced(tmp_path):
    path = tmp_path / "a.gif"
    path.write_bytes(b"precious")
    with pytest.raises(QomposeError, match=r"a\.gif exists; choose another name, or overwrite it \(--overwrite\)"):
        write(path, [picture(0)])
    assert path.read_bytes() == b"precious"
    write(path, [picture(0)], overwrite=True)
    assert path.read_bytes()[:3] == b"GIF" and list(tmp_path.iterdir()) == [path]


def test_file_that_appears_while_filming_is_kept(tmp_path):
    path = tmp_path / "a.gif"
    with pytest.raises(QomposeError, match="exists"), write_film(path, 20.0) as film:
        film.add(picture(0))
        path.write_bytes(b"precious")
    assert path.read_bytes() == b"precious" and list(tmp_path.iterdir()) == [path]


def test_old_file_survives_a_failed_replacement(tmp_path):
    path = tmp_path / "a.gif"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), write_film(path, 20.0, overwrite=True):
        raise RuntimeError
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["a.avi", "a", "a.mp4.txt"])
def test_unknown_suffix_is_refused(tmp_path, name):
    with pytest.raises(QomposeError, match=r"use \.mp4 or \.gif"):
        write(tmp_path / name, [picture(0)])
    assert list(tmp_path.iterdir()) == []


def test_directory_is_never_replaced(tmp_path):
    (tmp_path / "a.gif").mkdir()
    with pytest.raises(QomposeError, match="exists"):
        write(tmp_path / "a.gif", [picture(0)], overwrite=True)


def test_mp4_without_pyav_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(QomposeError, match=r"pip install av, or record a \.gif"):
        write(tmp_path / "a.mp4", [picture(0)])
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(QomposeError, match="cannot be written"):
        write(tmp_path / "file" / "a.gif", [picture(0)])
